"""Submit: tasks come in, with their idempotency keys."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from core.domain.lifecycle import TaskStatus
from core.domain.task import Submission, Submitted
from core.errors import Unavailable
from core.pool import Tx
from core.sql import statement
from core.verbs import rows


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest:
    """A request to submit that may be repeated: the same `key` and body give the same tasks, for 24 hours."""

    owner_id: int
    key: str
    body_hash: bytes
    submissions: Sequence[Submission]


class KeyedOutcome(StrEnum):
    """What became of a keyed request."""

    CREATED = "created"
    REPLAYED = "replayed"
    CONFLICT = "conflict"  # the key was used with another body


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedAnswer:
    """The answer to a keyed request; `submitted` is that of the first one, empty on a conflict."""

    outcome: KeyedOutcome
    submitted: list[Submitted]


async def _insert(
    tx: Tx, tasks: Sequence[Submission], keys: Sequence[str | None], hashes: Sequence[bytes | None]
) -> dict[UUID, Submitted]:
    if not tasks:
        return {}
    ids, owners, types, payloads, queues, priorities, titles, *rest = zip(*tasks, strict=True)
    return rows.born(
        await tx.fetch(
            statement("submit"), ids, owners, types, queues, priorities, titles, payloads, *rest, keys, hashes
        )
    )


async def ensure_queues(tx: Tx, names: Iterable[str]) -> None:
    """Make sure that the queues have rows. Callers remember which names they have seen."""
    await tx.execute(statement("ensure_queues"), sorted(set(names)))


async def submit(tx: Tx, submissions: Sequence[Submission]) -> list[Submitted]:
    """Insert tasks; return what became of each, in the order given."""
    none = [None] * len(submissions)
    born = await _insert(tx, submissions, none, none)
    return [born[task.id] for task in submissions]


async def submit_keyed(tx: Tx, requests: Sequence[KeyedRequest]) -> list[KeyedAnswer]:
    """Insert the tasks of requests whose keys are new, answer the others from what is stored.

    Raises asyncpg's LockNotAvailableError when another transaction holds a lock for longer than the session's
    `lock_timeout`; nothing was written then. `faults.key_held` tells whether the lock was that of a key.
    """
    first: dict[tuple[int, str], KeyedRequest] = {}
    for request in requests:
        first.setdefault((request.owner_id, request.key), request)
    asked = [(task, request) for request in first.values() for task in request.submissions]
    born = await _insert(
        tx,
        [task for task, _ in asked],
        [request.key for _, request in asked],
        [request.body_hash for _, request in asked],
    )
    created = {id(request) for request in first.values() if all(task.id in born for task in request.submissions)}
    stored = await _stored(tx, [request for request in requests if id(request) not in created])
    return [
        KeyedAnswer(outcome=KeyedOutcome.CREATED, submitted=[born[task.id] for task in request.submissions])
        if id(request) in created
        else stored[request.owner_id, request.key, request.body_hash]
        for request in requests
    ]


async def _stored(tx: Tx, losers: Sequence[KeyedRequest]) -> dict[tuple[int, str, bytes], KeyedAnswer]:
    """Read the first answers: a statement of its own, so that its snapshot has the rows that won."""
    if not losers:
        return {}
    found = await tx.fetch(statement("keyed_read"), [r.owner_id for r in losers], [r.key for r in losers])
    kept = {(row["owner_id"], row["key"]): row for row in found}
    answers = {}
    for request in losers:
        row = kept.get((request.owner_id, request.key))
        if row is None:  # it was in the way of our INSERT, and has turned 24 hours old since
            raise Unavailable("an idempotency key was forgotten in this very moment", fix="send the request again")
        same = row["body_hash"] == request.body_hash
        answers[request.owner_id, request.key, request.body_hash] = KeyedAnswer(
            outcome=KeyedOutcome.REPLAYED if same else KeyedOutcome.CONFLICT,
            submitted=[_first_answer(item) for item in json.loads(row["answer"])] if same else [],
        )
    return answers


def _first_answer(item: dict[str, str | bool]) -> Submitted:
    return Submitted(
        id=UUID(str(item["id"])),
        status=TaskStatus(str(item["status"])),
        created_at=datetime.fromisoformat(str(item["created_at"])),
        gated=bool(item["gated"]),
    )


async def find_submitted(tx: Tx, ids: Sequence[UUID]) -> set[UUID]:
    """Return which of `ids` are there: the way to learn what became of a COMMIT whose answer was lost."""
    found = await tx.fetch("select id from tasks where id = any ($1::uuid[])", list(ids))
    return {row["id"] for row in found}
