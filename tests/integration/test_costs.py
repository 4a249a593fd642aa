"""What a task costs PostgreSQL, in figures that no neighbour on the machine can change: statements, WAL records, bytes.

Seconds are for `make bench`. A figure that grows here was made dearer by a change; one that shrinks is worth a line
in the changelog, and a new bound.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pytest

from core import queue_manager as queue
from core.database import Database
from core.domain.ids import uuid7
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, Submission, WorkerFace
from tests.machine.plans import Spy
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.embedded import Servers

BATCH, BATCHES = 500, 4
TASKS = BATCH * BATCHES


class Cost(NamedTuple):
    """Statements of one batch; WAL records and bytes of one task, without the images of whole pages."""

    statements: int
    records: float
    bytes: float


class Meter:
    """Reads the server's own counters: nobody else uses this server."""

    def __init__(self, tx: Any) -> None:
        self._tx = tx
        self.statements: list[str] = []

    async def _wal(self) -> tuple[int, int]:
        await self._tx.execute("select pg_stat_force_next_flush()")
        row = await self._tx.fetchrow("select wal_records, wal_bytes::bigint as bytes from pg_stat_wal")
        return row["wal_records"], row["bytes"]

    async def cost(self, batches: list[Any], verb: Callable[[Any, Any], Awaitable[Any]]) -> tuple[Cost, list[Any]]:
        """Run `verb` on each batch; what a task of them cost, and what it answered."""
        records, size = await self._wal()
        spy = Spy(self._tx)
        answers = [await verb(spy, batch) for batch in batches]
        more_records, more_size = await self._wal()
        return Cost(
            len(spy.seen) // len(batches), (more_records - records) / TASKS, (more_size - size) / TASKS
        ), answers


async def measured(tx: Any) -> dict[str, Cost]:
    """Submit, claim and finish tasks; the costs."""
    await queue.ensure_partitions(tx)
    await queue.ensure_queues(tx, ["default"])
    await tx.execute("insert into users (email, username, password) values ('a@b.c', 'a', '')")
    worker = uuid4()
    face = WorkerFace(
        id=worker,
        secret=SECRET,
        name="w",
        queues=("default",),
        sync_types=(),
        async_types=("a:b",),
        sync_slots=0,
        async_slots=BATCH,
    )
    await queue.register_worker(tx, face)
    ids = [uuid7(time.time_ns() // 1_000_000, secrets.token_bytes(10)) for _ in range(TASKS)]
    batches = [ids[at : at + BATCH] for at in range(0, TASKS, BATCH)]
    meter, costs = Meter(tx), {}
    await tx.execute("checkpoint")
    costs["submit"], _ = await meter.cost(
        batches, lambda to, batch: queue.submit(to, [Submission(id=task, owner_id=1, type="a:b") for task in batch])
    )
    costs["claim"], claimed = await meter.cost(
        batches, lambda to, batch: queue.claim(to, batch, worker=worker, secret=SECRET, claim=uuid4(), types=["a:b"])
    )
    assert [len(batch) for batch in claimed] == [BATCH] * BATCHES
    costs["finish"], ended = await meter.cost(
        claimed,
        lambda to, batch: queue.finish(
            to, [Ending(task.id, task.attempt, task.claim, Cause.SUCCEED, Reason.RETURNED, "null") for task in batch]
        ),
    )
    assert [len(batch) for batch in ended] == [BATCH] * BATCHES
    return costs


def test_the_driver_still_asks_by_the_names_that_the_pool_replaces() -> None:
    asks = "from asyncpg.protocol import protocol; protocol.IterableABC, protocol.SizedABC"
    subprocess.run([sys.executable, "-c", asks], check=True)


@pytest.mark.timeout(120)
async def test_a_task_costs_no_more_than_it_did(own_servers: Servers) -> None:
    async with Database(own_servers.database_url, name="costs") as database, database.connection() as tx:
        await tx.execute("alter system set full_page_writes = off")
        await tx.execute("alter system set autovacuum = off")
        await tx.execute("select pg_reload_conf()")
        costs = await measured(tx)
    print(costs)  # the new bounds, when these have grown for a reason
    most = {"submit": Cost(1, 6.2, 760), "claim": Cost(1, 7.9, 860), "finish": Cost(1, 6.6, 760)}
    for verb, cost in costs.items():
        assert cost.statements == most[verb].statements, verb
        assert cost.records <= most[verb].records, (verb, cost)
        assert cost.bytes <= most[verb].bytes, (verb, cost)
