"""Drain: tasks are queued first, then the workers start; from the first claim to the last committed ending."""

import asyncio
import os
import secrets
import time
from dataclasses import dataclass
from uuid import UUID

from bench import filling
from bench.counting import Counters, busy_seconds, counters, processes
from core import queue_manager as queue
from core.database import Database
from core.domain.ids import uuid7
from core.domain.task import Submission
from services.dev.stage import Stage

BATCH = 1000
PATIENCE_SECONDS = 900.0
_DONE = """
select count(*) as done, extract(epoch from max(finished_at) - min(started_at))::float8 as seconds
from tasks where status = 'COMPLETED' and queue = $1 and finished_at > to_timestamp($2)
"""


@dataclass(frozen=True, slots=True)
class Drain:
    """One drain: tasks a second, and what each thousand tasks cost."""

    kind: str
    tasks: int
    seconds: float
    cpu: dict[str, float]
    spent: Counters

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.tasks / self.seconds


def new_id() -> UUID:
    """A fresh task id."""
    return uuid7(time.time_ns() // 1_000_000, secrets.token_bytes(10))


async def fill(database: Database, kind: str, count: int, owner: int) -> None:
    """Queue `count` tasks of `kind`, a thousand a commit."""
    async with database.begin() as tx:
        await queue.ensure_queues(tx, [filling.QUEUE])
    for start in range(0, count, BATCH):
        some = [
            Submission(id=new_id(), owner_id=owner, type=kind, queue=filling.QUEUE, payload="null")
            for _ in range(min(BATCH, count - start))
        ]
        async with database.connection() as tx:
            await queue.submit(tx, some)


async def drain(database: Database, stage: Stage, kind: str, count: int, *, workers: int) -> Drain:
    """Queue tasks on empty tables, and drain them."""
    await filling.empty(database)
    await fill(database, kind, count, stage.owner)
    return await drained(database, stage, kind, count, workers=workers)


async def drained(database: Database, stage: Stage, kind: str, count: int, *, workers: int, **env: str) -> Drain:
    """Start workers, wait until `count` tasks are committed from now on, stop the workers."""
    began = time.time()
    before = await counters(database)
    cpu_before = busy_seconds(processes(stage))
    started = [stage.fleet.worker("bench.tasks", **env) for _ in range(workers)]
    end = time.monotonic() + PATIENCE_SECONDS
    done, seconds, pause = 0, 0.0, 0.25
    while done < count and time.monotonic() < end:
        await asyncio.sleep(pause)
        looked = time.monotonic()
        async with database.connection() as tx:
            done, seconds = await tx.fetchrow(_DONE, filling.QUEUE, began)
        pause = max(0.25, 20 * (time.monotonic() - looked))  # to count takes a core away
    if done < count:
        raise TimeoutError(f"{done} of {count} tasks were done after {PATIENCE_SECONDS:.0f} s")
    cpu = {name: value - cpu_before.get(name, 0.0) for name, value in busy_seconds(processes(stage)).items()}
    stage.fleet.stop(*started)
    await asyncio.sleep(1)  # sessions report what they did when they end
    spent = (await counters(database)).since(before)
    return Drain(kind, count, seconds, cpu, spent)


def worker_count() -> int:
    """Two, as in every figure of ours; BENCH_WORKERS says otherwise."""
    return int(os.environ.get("BENCH_WORKERS", "2"))
