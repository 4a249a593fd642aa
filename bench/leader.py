"""What one leader can do: references and promotions a second, a round over many queues, beats of idle workers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID, uuid4

from bench import filling
from bench.verbs import server_seconds
from core import clock
from core import queue_manager as queue
from core.config import settings
from core.database import Database
from core.domain.ordering import Lane
from core.domain.task import WorkerFace
from core.leadership import Leadership, PostgresLease
from core.pool import Tx
from core.references import References
from services.dev.stage import Stage
from services.scheduler import duties

SECRET: Final = UUID(int=1)  # a benchmark has nobody to hide it from
KIND = "bench:noop"
REFERENCES, HELD, KEYS = 300_000, 1_000_000, 100_000
QUEUES, WORKERS = 10_000, 500
PATIENCE_SECONDS = 300.0
WANT = 4000
_PROMOTED = """
select count(*) as done, coalesce(extract(epoch from max(updated_at) - min(updated_at))::float8, 0) as seconds
from tasks where status = 'QUEUED' and permit and concurrency_key <> 'full'
"""


def _face(number: int = 0, queues: tuple[str, ...] = (filling.QUEUE,)) -> WorkerFace:
    return WorkerFace(
        id=uuid4(), secret=SECRET,
        name=f"bench-{number}", queues=queues, sync_types=(), async_types=(KIND,), sync_slots=0,
        async_slots=100,
    )  # fmt: skip


async def _register(tx: Tx, faces: list[WorkerFace]) -> None:
    for face in faces:
        await queue.register_worker(tx, face)


async def _beat(database: Database, worker: UUID) -> None:
    while True:
        async with database.connection() as tx:
            await queue.beat(tx, worker, secret=SECRET, free_sync=0, free_async=100)
        await asyncio.sleep(1)


@asynccontextmanager
async def _worker(database: Database) -> AsyncIterator[UUID]:
    """A worker that is a row and beats."""
    face = _face()
    async with database.connection() as tx:
        await _register(tx, [face])
    beating = asyncio.create_task(_beat(database, face.id))
    try:
        yield face.id
    finally:
        beating.cancel()
        await asyncio.wait({beating})
    async with database.connection() as tx:
        await queue.retire_worker(tx, face.id, secret=SECRET)


async def references(database: Database, stage: Stage) -> float:
    """References a second from the leader's process to one reader."""
    await filling.empty(database)
    await filling.backlog(database, KIND, REFERENCES, stage.owner)
    seen: set[UUID] = set()
    async with _worker(database) as worker, References(seconds=5.0) as refs:
        reader = refs.reader(worker=worker, lane=Lane.ASYNC, queues=[filling.QUEUE], types=[KIND])
        began = 0.0
        end = time.monotonic() + PATIENCE_SECONDS
        while len(seen) < REFERENCES and time.monotonic() < end:
            found = await reader.read(count=WANT, want=WANT)
            began = began or time.monotonic()
            seen.update(ref.id for ref in found)
        rate = len(seen) / (time.monotonic() - began)
        await reader.aclose()
    if len(seen) < REFERENCES:
        raise TimeoutError(f"{len(seen)} of {REFERENCES} references came within {PATIENCE_SECONDS:.0f} s")
    return rate


async def promotions(database: Database, stage: Stage) -> float:
    """Gated tasks let through a second, one of each key, beside a key that is full and holds a million back."""
    await filling.empty(database)
    await filling.gated(database, KIND, stage.owner, held=HELD, keys=KEYS)
    await filling.settle(database)
    end = time.monotonic() + PATIENCE_SECONDS
    done, seconds = 0, 0.0
    async with _worker(database):
        while done < KEYS and time.monotonic() < end:
            await asyncio.sleep(0.5)
            async with database.connection() as tx:
                done, seconds = await tx.fetchrow(_PROMOTED)
    if done < KEYS:
        raise TimeoutError(f"{done} of {KEYS} tasks were let through within {PATIENCE_SECONDS:.0f} s")
    return done / seconds


async def rounds(database: Database) -> tuple[float, float]:
    """Seconds of a feeder's first round over 10,000 queues with a task each, and of the rounds after it."""
    await filling.empty(database)
    names = [f"bench-{number}" for number in range(QUEUES)]
    faces = [_face(number, tuple(names[number::100])) for number in range(100)]
    async with database.connection() as tx:
        await queue.ensure_queues(tx, names)
        await _register(tx, faces)
        await tx.execute(
            "insert into tasks (id, seq, owner_id, type, queue, payload, payload_bytes, status)"
            " select gen_random_uuid(), nextval('task_seq'), 1, $1, name, 'null', 4, 'QUEUED'"
            " from unnest($2::text[]) as name",
            KIND,
            names,
        )
    taken = []
    async with References(seconds=5.0) as refs:
        holder = uuid4()
        election = PostgresLease(database, holder)
        async with Leadership(settings.database_url, holder, db=database, election=election).term() as (term, _):
            ctx = duties.context(term, refs, clock=clock.system, lease=settings.lease_seconds)
            for _ in range(6):
                began = time.monotonic()
                await ctx.feeder.round()
                taken.append(time.monotonic() - began)
    async with database.connection() as tx:
        for face in faces:
            await queue.retire_worker(tx, face.id, secret=SECRET)
        await tx.execute("delete from queues where name = any($1)", names)
    await filling.empty(database)
    return taken[0], max(taken[1:])


async def beats(database: Database) -> float:
    """The share of one core that PostgreSQL spends on the beats of 500 idle workers and the leader's look at them."""
    faces = [_face(number) for number in range(WORKERS)]
    turns = 10
    async with database.connection() as tx:
        await _register(tx, faces)
        await tx.execute("set synchronous_commit = off")
        pid = await tx.fetchval("select pg_backend_pid()")
        before = server_seconds(pid)
        for _ in range(turns):
            for face in faces:
                await queue.beat(tx, face.id, secret=SECRET, free_sync=0, free_async=100)
        beaten = (server_seconds(pid) - before) / turns
        before = server_seconds(pid)
        for _ in range(turns):
            await queue.live_workers(tx)
        looked = (server_seconds(pid) - before) / turns
        for face in faces:
            await queue.retire_worker(tx, face.id, secret=SECRET)
        await tx.execute("reset synchronous_commit")
    return beaten / settings.heartbeat_interval_seconds + looked


async def figures(database: Database, stage: Stage) -> list[str]:
    """The page's table."""
    share = await beats(database)
    fed = await references(database, stage)
    let = await promotions(database, stage)
    stage.fleet.stop(*stage.fleet.living("scheduler"))
    first, later = await rounds(database)
    stage.fleet.ready(stage.fleet.scheduler())
    many = f"a feeder's round over {QUEUES:,} queues: the first, the slowest of the next five"
    return [
        "| what a leader has to do | measured | target |",
        "|---|---|---|",
        f"| references a second, to one reader | {fed:,.0f} | 30,000 |",
        f"| promotions a second: {KEYS:,} keys, {HELD:,} rows behind a full one | {let:,.0f} | 10,000 |",
        f"| {many} | {first:.2f} s, {later:.2f} s | 1 s |",
        f"| {WORKERS} idle workers: beats and the leader's look, of one core | {100 * share:.1f} % | 5 % |",
    ]
