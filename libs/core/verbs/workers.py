"""Workers: one row per process, and death that is one-way."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from core.domain.task import WorkerFace
from core.pool import Tx
from core.sql import call, digest, statement

DEATH_SECONDS = 30 * 86400.0  # why a worker died is told with its attempts, which are looked at for weeks


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker that is not dead. `beat_age` is seconds on the database's clock: for people, never for decisions."""

    id: UUID
    name: str
    state: str
    beat_seq: int
    queues: Sequence[str]
    sync_types: Sequence[str]
    async_types: Sequence[str]
    sync_slots: int
    async_slots: int
    free_sync: int
    free_async: int
    build: str
    pid: int
    beat_age: float
    created_at: datetime


async def register_worker(tx: Tx, face: WorkerFace) -> bool:
    """Introduce a worker, or renew what it can run; False when this id is dead already, or is another's."""
    state = await tx.fetchval(
        call("worker_register"),
        face.id,
        face.name,
        list(face.queues),
        list(face.sync_types),
        list(face.async_types),
        face.sync_slots,
        face.async_slots,
        face.build,
        face.pid,
        msgspec.json.encode(face.facts).decode(),
        face.secret,
        digest(),
    )
    return state is not None


async def drain_worker(tx: Tx, worker: UUID, *, secret: UUID) -> bool:
    """Let a worker leave: it keeps what it runs and claims nothing more, for ever. False when it is dead already."""
    return await tx.fetchval(call("worker_state"), worker, "draining", secret) is not None


async def retire_worker(tx: Tx, worker: UUID, *, secret: UUID) -> None:
    """Mark a worker dead at its clean exit; what it still held is rescued."""
    await tx.fetchval(call("worker_state"), worker, "dead", secret)


async def mark_dead(tx: Tx, worker: UUID, beat_seq: int) -> bool:
    """Declare a worker dead whose `beat_seq` was seen to stand still; False when it has beaten since."""
    return await tx.fetchval(statement("worker_dead"), worker, beat_seq) is not None


async def live_workers(tx: Tx) -> list[WorkerRow]:
    """Return all workers that are not dead."""
    return [WorkerRow(**dict(row)) for row in await tx.fetch(statement("workers_live"))]


async def forget_workers(tx: Tx, *, age: float, limit: int = 500) -> None:
    """Delete the rows of workers dead for `age` seconds that hold nothing; with a cause of death, after 30 days."""
    await tx.execute(statement("workers_forget"), age, limit, DEATH_SECONDS)
