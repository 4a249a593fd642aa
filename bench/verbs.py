"""Verbs alone: CPU of the server and of the caller for each task, by the size of the batch. One connection, no network.

CPU time is far less disturbed by neighbours than seconds are, but not by all: two threads of one core share it.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from core import queue_manager as queue
from core.database import Database
from core.domain.ids import uuid7
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, Submission, WorkerFace

SECRET: Final = UUID(int=1)  # a benchmark has nobody to hide it from
TASKS = 20_000
BATCHES = (20, 100, 500)
TYPE = "bench:noop"


@dataclass(frozen=True, slots=True)
class Spent:
    """Microseconds of CPU a task."""

    verb: str
    batch: int
    server: float
    caller: float


def server_seconds(pid: int) -> float:
    """CPU that a process has had: the kernel counts nanoseconds here, hundredths of seconds elsewhere."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


class Meter:
    """Spends CPU, and says how much."""

    def __init__(self, tx: Any, pid: int, owner: int, worker: UUID) -> None:
        self._tx, self._pid, self._owner, self._worker = tx, pid, owner, worker

    async def _spend(self, verb: str, batch: int, parts: Sequence[Any], do: Callable[[Any], Awaitable[Any]]) -> Spent:
        server, caller = server_seconds(self._pid), time.process_time()
        for part in parts:
            await do(part)
        server, caller = server_seconds(self._pid) - server, time.process_time() - caller
        return Spent(verb, batch, 1e6 * server / TASKS, 1e6 * caller / TASKS)

    async def measure(self, size: int) -> list[Spent]:
        """Submit, claim and finish tasks in batches of `size`."""
        tx, claimed = self._tx, []
        await tx.execute("truncate tasks, task_events, task_logs")
        ids = [uuid7(time.time_ns() // 1_000_000, secrets.token_bytes(10)) for _ in range(TASKS)]
        batches = [ids[at : at + size] for at in range(0, TASKS, size)]

        async def submit(some: Sequence[UUID]) -> None:
            await queue.submit(
                tx, [Submission(id=task, owner_id=self._owner, type=TYPE, queue="bench") for task in some]
            )

        async def claim(some: Sequence[UUID]) -> None:
            claimed.append(await queue.claim(tx, some, worker=self._worker, secret=SECRET, claim=uuid4(), types=[TYPE]))

        async def finish(some: Sequence[Any]) -> None:
            ends = [Ending(one.id, one.attempt, one.claim, Cause.SUCCEED, Reason.RETURNED, "null") for one in some]
            await queue.finish(tx, ends)

        return [
            await self._spend("submit", size, batches, submit),
            await self._spend("claim", size, batches, claim),
            await self._spend("finish", size, claimed, finish),
        ]


async def verbs(database: Database, owner: int) -> list[Spent]:
    """Measure them all."""
    face = WorkerFace(
        id=uuid4(),
        secret=SECRET,
        name="bench",
        queues=("bench",),
        sync_types=(),
        async_types=(TYPE,),
        sync_slots=0,
        async_slots=0,
    )
    async with database.connection() as tx:
        await queue.ensure_queues(tx, ["bench"])
        await queue.register_worker(tx, face)
        meter = Meter(tx, await tx.fetchval("select pg_backend_pid()"), owner, face.id)
        found = [spent for size in BATCHES for spent in await meter.measure(size)]
        await queue.retire_worker(tx, face.id, secret=SECRET)
    return found


def table(found: Sequence[Spent]) -> list[str]:
    """The page's table."""
    lines = ["| verb | " + " | ".join(f"by {size}: server | caller" for size in BATCHES) + " |"]
    lines.append("|---" * (1 + 2 * len(BATCHES)) + "|")
    for verb in dict.fromkeys(spent.verb for spent in found):
        cells = [f"{spent.server:.1f} | {spent.caller:.1f}" for spent in found if spent.verb == verb]
        lines.append(f"| {verb} | " + " | ".join(cells) + " |")
    return lines
