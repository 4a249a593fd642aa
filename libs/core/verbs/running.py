"""What a worker does: claim, beat, finish.

Every write names (id, attempt, claim); a row that does not come back is no longer the caller's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from types import MappingProxyType
from typing import TypeAlias
from uuid import UUID

import msgspec

from core.domain.cursors import Route
from core.domain.lifecycle import TABLE, Cause, TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import FREE_WORKER_DEATHS, Asked, Claimed, Ending, Held, Moved, Reason
from core.pool import Tx
from core.sql import call, statement
from core.verbs import rows

Text: TypeAlias = Callable[[str], str]  # from the name of a statement to what is sent
NOWHERE: Mapping[Route, int] = MappingProxyType({})
MOST_CLAIM_BYTES = 8 * 1024 * 1024
HOLDER_REASONS = [reason.value for reason in Reason if reason is not Reason.WORKER_LOST]


class Why(StrEnum):
    """Why a reference was not claimed."""

    GONE = "gone"  # not QUEUED any more, or not there: drop the reference
    WAITING = "waiting"  # QUEUED still: locked by another, or beyond the byte cap: try once more
    SOLO = "solo"  # wants a whole worker
    REFUSED = "refused"  # paused, held by a cap, or not of the caller's types


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running attempt has come: `fraction` from 0 to 1."""

    id: UUID
    attempt: int
    claim: UUID
    fraction: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A QUEUED row that a poll or a feed found. It is a hint; the claim decides."""

    id: UUID
    seq: int
    queue: str
    type: str
    priority: PriorityType


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Text that a handler wrote during an attempt."""

    id: UUID
    attempt: int
    claim: UUID
    text: str


async def poll(
    tx: Tx, *, queues: Sequence[str], types: Sequence[str], limit: int, beyond: Mapping[Route, int] = NOWHERE
) -> list[Candidate]:
    """Return up to `limit` QUEUED rows that a reader of `queues` and `types` may claim, most urgent first.

    `beyond` are places in the order, of a queue, a type and a priority each, up to which nothing is looked for.
    """
    marks = [(*route, seq) for route, seq in beyond.items()]
    columns = zip(*marks, strict=True) if marks else ([], [], [], [])
    found = await tx.fetch(call("poll"), list(queues), list(types), limit, *columns)
    return [Candidate(**{**row, "priority": PriorityType(row["priority"])}) for row in map(dict, found)]


async def claim(
    tx: Tx,
    ids: Sequence[UUID],
    *,
    worker: UUID,
    secret: UUID,
    claim: UUID,
    types: Sequence[str],
    most_bytes: int = MOST_CLAIM_BYTES,
    solo: bool = False,
) -> list[Claimed]:
    """Claim what is still QUEUED of `ids` for `worker`, in that order, up to `most_bytes` of payload.

    `secret` is the one that the worker registered with. `claim` is random and known to the caller before it asks, so
    that a lost answer can be read back. `solo` says that the worker is empty and will stay so: only then tasks that
    want a whole worker are given.
    """
    found = await tx.fetch(
        call("claim"), list(ids), worker, claim, list(types), most_bytes, solo, FREE_WORKER_DEATHS, secret
    )
    claimed = {task.id: task for task in rows.claimed(found, claim)}
    return [claimed.pop(task) for task in ids if task in claimed]  # once each, however often it was hinted


async def claimed_under(tx: Tx, ids: Sequence[UUID], claim: UUID, *, worker: UUID, secret: UUID) -> list[Claimed]:
    """Return what of `ids` a worker holds under `claim`, after the answer to a claim was lost."""
    return rows.claimed(await tx.fetch(call("claimed_under"), list(ids), claim, worker, secret), claim)


async def session_lives(tx: Tx, pid: int) -> bool:
    """Tell whether the session with that server process, of the same name as `tx`, is still there."""
    return bool(await tx.fetchval(statement("session_lives"), pid))


async def unclaimed(tx: Tx, ids: Sequence[UUID], types: Sequence[str]) -> dict[UUID, Why]:
    """Say of each of `ids` why it was not claimed."""
    found = await tx.fetch(call("unclaimed"), list(ids), list(types), FREE_WORKER_DEATHS)
    reasons = {row["id"]: Why(row["why"]) for row in found}
    return {task: reasons.get(task, Why.GONE) for task in ids}


async def beat(tx: Tx, worker: UUID, *, secret: UUID, free_sync: int, free_async: int, held_endings: int = 0) -> Asked:
    """Tell that `worker` lives. Run it on a connection of its own."""
    found = await tx.fetch(call("beat"), worker, free_sync, free_async, secret, held_endings)
    if not found:
        return Asked(alive=False)
    return Asked(
        alive=True,
        draining=found[0]["state"] == "draining",
        cordoned=found[0]["state"] == "cordoned",
        cancelling=tuple((row["id"], row["attempt"]) for row in found if row["id"] is not None),
    )


async def record_progress(tx: Tx, progress: Sequence[Progress]) -> None:
    """Write how far running attempts have come. A row that another transaction has locked keeps what it has."""
    ordered = sorted(progress, key=lambda item: item.id)
    await tx.execute(
        call("progress"),
        [item.id for item in ordered],
        [item.attempt for item in ordered],
        [item.claim for item in ordered],
        [msgspec.json.encode({"fraction": item.fraction, "note": item.note}).decode() for item in ordered],
    )


async def inventory(tx: Tx, worker: UUID, *, secret: UUID) -> list[Held]:
    """Return what PostgreSQL says that `worker` runs."""
    found = await tx.fetch(call("inventory"), worker, secret)
    return [
        Held(id=row["id"], attempt=row["attempt"], claim=row["claim"], status=TaskStatus(row["status"]))
        for row in found
    ]


def _targets(cause: Cause) -> tuple[str | None, str | None, str]:
    """Return where `cause` leads from IN_PROGRESS, the same when gated, and from CANCELLING; None is no legal move."""
    moves = TABLE[cause]
    running = moves.get(TaskStatus.IN_PROGRESS)
    cancelling = moves[TaskStatus.CANCELLING].free.value
    return (running.free.value, running.gated.value, cancelling) if running else (None, None, cancelling)


_TARGETS = {cause: _targets(cause) for cause, moves in TABLE.items() if TaskStatus.CANCELLING in moves}


async def finish(
    tx: Tx, endings: Sequence[Ending], *, skip_locked: bool = False, text: Text | None = None
) -> list[Moved]:
    """End attempts. What does not come back was fenced, or another transaction has locked it: see `still_held`.

    Most attempts simply return and log nothing. They go by a statement that is made for them, and that waits for locked
    rows for as long as the session's `lock_timeout` lets it. What that one leaves, and every other ending, goes by the
    general one, which skips locked rows. `skip_locked` sends everything by the general one. Each of the two is complete
    in itself, so the caller needs no transaction around them. `text` is core.sql.statement for a caller with rights on
    the tables, which is no worker.
    """
    text = text or call
    ordered = sorted(endings, key=itemgetter(0))
    plain = [] if skip_locked else [one for one in ordered if one.reason is Reason.RETURNED and not one.logs]
    moved = await _succeed(tx, plain, text)
    if len(moved) < len(ordered):
        came = {(row.id, row.attempt) for row in moved}
        moved += await _finish(tx, [ending for ending in ordered if (ending.id, ending.attempt) not in came], text)
    return moved


async def _succeed(tx: Tx, ordered: Sequence[Ending], text: Text) -> list[Moved]:
    if not ordered:
        return []
    ids, attempts, claims, _, _, results, *_ = zip(*ordered, strict=True)
    return rows.moved_alike(await tx.fetch(text("succeed"), ids, attempts, claims, results))


async def _finish(tx: Tx, ordered: Sequence[Ending], text: Text) -> list[Moved]:
    if not ordered:
        return []
    ids, attempts, claims, causes, reasons, results, errors, delays, failures, crashes, isolations, logs = zip(
        *ordered, strict=True
    )
    free, gated, cancelling = zip(*map(_TARGETS.__getitem__, causes), strict=True)
    found = await tx.fetch(
        text("finish"), ids, attempts, claims, free, gated, cancelling, results, errors, delays, failures, crashes,
        isolations, reasons, logs,
    )  # fmt: skip
    return rows.moved(found)


async def still_held(tx: Tx, endings: Sequence[Ending]) -> set[tuple[UUID, int, UUID]]:
    """Return those of `endings`, as (id, attempt, claim), that the row still waits for. It waits for no lock.

    A `finish` that left such an ending found its row locked.
    """
    found = await tx.fetch(
        call("still_held"),
        [ending.id for ending in endings],
        [ending.attempt for ending in endings],
        [ending.claim for ending in endings],
    )
    running = {(row["id"], row["attempt"], row["claim"]): row["status"] == TaskStatus.IN_PROGRESS for row in found}
    keys = [((one.id, one.attempt, one.claim), _TARGETS[one.cause][0] is not None) for one in endings]
    return {key for key, may_run in keys if key in running and (may_run or not running[key])}


async def ended_under(tx: Tx, endings: Sequence[Ending]) -> set[tuple[UUID, int, UUID]]:
    """Return those of `endings`, as (id, attempt, claim), that are recorded already: the first send had landed."""
    found = await tx.fetch(
        call("ended_under"),
        [ending.id for ending in endings],
        [ending.attempt for ending in endings],
        [ending.claim for ending in endings],
        HOLDER_REASONS,
    )
    return {(row["id"], row["attempt"], row["claim"]) for row in found}


async def record_fenced(tx: Tx, endings: Sequence[Ending]) -> None:
    """Write the FENCED events of outcomes that were refused."""
    await tx.execute(
        call("record_fenced"),
        [ending.id for ending in endings],
        [ending.attempt for ending in endings],
        [ending.claim for ending in endings],
        [ending.reason.value for ending in endings],
    )


async def append_logs(tx: Tx, chunks: Sequence[LogChunk]) -> None:
    """Keep what handlers wrote; text of an attempt that is not held any more is dropped."""
    await tx.execute(
        call("append_logs"),
        [chunk.id for chunk in chunks],
        [chunk.attempt for chunk in chunks],
        [chunk.text for chunk in chunks],
        [chunk.claim for chunk in chunks],
    )
