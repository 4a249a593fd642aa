"""What a TaskQueue of Kubernetes says, brought into PostgreSQL, where API, scheduler and workers read it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.domain.events import EventType
from core.domain.lifecycle import Cause
from core.errors import Conflict
from core.pool import Tx
from core.sql import statement
from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK
from core.verbs.owning import move
from core.verbs.queues import regate


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """A queue as its TaskQueue wants it. A cap of 0 is none; a `timeout_seconds` of 0 is no limit."""

    queue: str
    paused: bool
    max_concurrent: int
    max_per_key: int
    max_attempts: int
    timeout_seconds: float
    completed_seconds: int
    failed_seconds: int
    concurrency: int


async def apply_taskqueue(tx: Tx, settings: QueueSettings, *, source: Mapping[str, object]) -> bool:
    """Bring a queue's row to what its TaskQueue says; True when something changed.

    `source` says which TaskQueue it is: {"namespace", "name", "uid", "generation"}, kept for the next time. `paused`
    is written only when it differs from what the TaskQueue said last: a pause by REST stays until somebody edits the
    TaskQueue. Raises Conflict when the queue belongs to a TaskQueue with another uid.
    """
    said = {**source, "paused": settings.paused}
    row = await tx.fetchrow(statement("taskqueue_read"), settings.queue)
    before: dict[str, Any] = json.loads(row["taskqueue"]) if row and row["taskqueue"] else {}
    if before and before["uid"] != said["uid"]:
        raise _taken(settings.queue, before)
    values = _values(settings)
    changed = row is None or any(row[name] != value for name, value in values.items())
    changed = changed or settings.paused != before.get("paused", False)
    if not changed and before == said:
        return False
    # Under the gate's lock: a gate that counted under the old caps must have committed, or it would exceed these.
    await tx.execute(statement("gate_lock"), ADVISORY_CLASS, GATE_LOCK)
    done = await tx.fetchval(
        statement("taskqueue_apply"), settings.queue, settings.paused, *values.values(), json.dumps(said)
    )
    if done is None:
        raise _taken(settings.queue, {})
    if changed:
        await regate(tx, settings.queue)
    return changed


def _values(settings: QueueSettings) -> dict[str, object]:
    """Return the columns that follow the TaskQueue, in the order of the statement; `paused` goes its own way."""
    return {
        "max_concurrent": settings.max_concurrent,
        "max_per_key": settings.max_per_key,
        "default_max_attempts": settings.max_attempts,
        "default_timeout_seconds": settings.timeout_seconds or None,
        "completed_seconds": settings.completed_seconds,
        "failed_seconds": settings.failed_seconds,
        "concurrency": settings.concurrency,
    }


def _taken(queue: str, by: Mapping[str, object]) -> Conflict:
    name = f" {by['namespace']}/{by['name']}" if {"namespace", "name"} <= by.keys() else ""
    message = f"queue {queue!r} is set by another TaskQueue{name}"
    return Conflict(message, fix="give one of the two another spec.queueName, or delete it", field="queueName")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTaskQueue:
    """Which TaskQueue sets a queue, as it was when it did."""

    queue: str
    namespace: str
    name: str
    uid: str


async def recorded_taskqueues(tx: Tx) -> list[RecordedTaskQueue]:
    """Return every queue that a TaskQueue sets: one that is no more may be among them."""
    return [RecordedTaskQueue(**dict(row)) for row in await tx.fetch(statement("taskqueues_recorded"))]


async def release_taskqueue(tx: Tx, queue: str, uid: str) -> None:
    """Forget that a TaskQueue sets this queue, if it is the one with `uid`; the settings stay as they are."""
    await tx.execute(statement("taskqueue_release"), queue, uid)


async def purge_queue(tx: Tx, queue: str, limit: int = 1000) -> int:
    """Cancel up to `limit` waiting tasks (QUEUED, PENDING, BLOCKED) of a queue; return how many.

    0: none is left but those that somebody else is moving at this moment. Running ones go on.
    """
    ids = [row["id"] for row in await tx.fetch(statement("queue_waiting"), queue, limit)]
    if not ids:
        return 0
    return len(await move(tx, Cause.CANCEL, ids, event=EventType.CANCELLED, message="by the deletion of its TaskQueue"))
