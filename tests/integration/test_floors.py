"""Floors on a real PostgreSQL: they rise behind what was claimed, not above what is QUEUED, and spare dead rows."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import queue_manager as queue
from core.database import Database
from core.domain.floors import LEAST_STEP, Settled
from core.references import References
from core.sql import statement
from services.scheduler import duties
from services.scheduler.ticks import floors, watch
from tests.leading import HIGH, LOW, NORMAL, Hand, OwnClock, leading
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.domain.cursors import Route
    from core.verbs.floors import Floors
    from services.scheduler.context import Context

ROUTE: Route = ("default", "a:b", NORMAL)
OTHERS_SECONDS = 60.0  # transactions of other tests and of autovacuum are waited for, too
DEAD = 3000


class Scene:
    """A leader whose ticks are called by hand, and a worker that is a row."""

    def __init__(self, ctx: Context, hand: Hand) -> None:
        self.ctx, self.hand = ctx, hand

    async def settled(self) -> int:
        settled = Settled()
        async with self.hand.db.connection() as tx:
            last = (await queue.look_at_sequence(tx)).last

            async def so_far() -> bool:
                return settled.step(await queue.look_at_sequence(tx)) >= last

            await happens(so_far, OTHERS_SECONDS)
        return settled.seq

    async def raised(self, settled: int, **more: Any) -> Floors:
        async with self.hand.db.begin() as tx:
            return await queue.raise_floors(tx, settled, **{"step": 1, **more})

    async def floors(self) -> Floors:
        async with self.hand.db.connection() as tx:
            return await queue.floors(tx)

    async def seqs(self) -> list[int]:
        return [row["seq"] for row in await self.hand.run("select seq from tasks where status = 'QUEUED' order by seq")]

    async def claimed(self, count: int) -> None:
        worker = await self.hand.worker()
        await self.hand.claim(await self.hand.submit(count), worker)

    async def ended(self, count: int) -> None:
        """Tasks that came and went, all at once."""
        await self.hand.run(
            "insert into tasks (id, seq, owner_id, type, queue, payload, payload_bytes, status)"
            " select gen_random_uuid(), nextval('task_seq'), 1, 'a:b', 'default', 'null', 4, 'QUEUED'"
            " from generate_series(1, $1::int)",
            count,
        )
        await self.hand.run("update tasks set status = 'COMPLETED', finished_at = now() where status = 'QUEUED'")


@pytest.fixture
async def scene(environment: dict[str, str]) -> AsyncIterator[Scene]:
    url = environment["DATABASE_URL"]
    async with AsyncExitStack() as stack:
        refs = await stack.enter_async_context(References(seconds=2.0))
        hand = Hand(await stack.enter_async_context(Database(url, name="tf-test")), refs)
        async with hand.db.begin() as tx:
            await queue.ensure_queues(tx, ["default"])
        await hand.worker()
        ctx = await stack.enter_async_context(leading(url, refs, OwnClock()))
        await watch.tick(ctx)
        yield Scene(ctx, hand)


async def test_a_floor_rises_to_the_first_row_that_is_queued(scene: Scene) -> None:
    await scene.claimed(3)
    await scene.hand.submit(2)
    await scene.claimed(2)
    settled = await scene.settled()
    [first, _] = await scene.seqs()
    assert await scene.raised(settled) == {
        ROUTE: first - 1,
        ("default", "a:b", HIGH): settled,
        ("default", "a:b", LOW): settled,
    }
    assert await scene.raised(settled) == {}
    assert (await scene.floors())[ROUTE] == first - 1


async def test_it_does_not_rise_above_who_drew_a_place_and_has_not_committed(scene: Scene) -> None:
    other = await scene.hand.db.own_connection()
    await scene.claimed(1)
    async with other.transaction():
        await other.execute(
            "insert into tasks (id, seq, owner_id, type, queue, payload, payload_bytes, status)"
            " values ($1, nextval('task_seq'), 1, 'a:b', 'default', 'null', 4, 'QUEUED')",
            uuid4(),
        )
        await scene.claimed(3)
        settled = Settled()
        async with scene.hand.db.connection() as tx:
            for _ in range(20):
                settled.step(await queue.look_at_sequence(tx))
        await scene.raised(settled.seq)
    await other.close()
    [late] = await scene.seqs()
    await scene.raised(await scene.settled())
    assert (await scene.floors())[ROUTE] == late - 1


async def test_it_does_not_rise_above_a_sequence_that_was_set_back(scene: Scene) -> None:
    await scene.claimed(3)
    settled = await scene.settled()
    assert set((await scene.raised(settled + 1000)).values()) == {settled}


async def test_the_feeder_forgets_a_floor_that_the_table_does_not_have(scene: Scene) -> None:
    feeder = scene.ctx.feeder
    feeder.stand({ROUTE: 1000})
    await feeder.round()
    cursor = feeder.feeding.cursors[ROUTE]
    assert cursor.seq == 1000
    await floors.check(scene.ctx)
    cursor.look()
    assert cursor.behind(scene.ctx.clock.monotonic()) == 0


async def test_small_steps_and_idle_queues_are_left_alone(scene: Scene) -> None:
    await scene.claimed(3)
    settled = await scene.settled()
    assert await scene.raised(settled, step=settled + 1) == {}
    assert await scene.raised(settled, seconds=60.0) == {}  # nothing ended there
    await scene.ended(1)
    assert ROUTE in await scene.raised(await scene.settled(), seconds=60.0)


async def test_an_older_word_does_not_lower_a_floor(scene: Scene) -> None:
    await scene.claimed(3)
    settled = await scene.settled()
    await scene.raised(settled)
    await scene.hand.run("update ready_floors set seq = seq + 5")
    await scene.raised(settled, step=-9)
    assert set((await scene.floors()).values()) == {settled + 5}


async def test_the_next_leader_begins_at_the_floors(scene: Scene) -> None:
    ctx = scene.ctx
    assert await floors.tick(ctx) == 0
    await scene.hand.run("select setval('task_seq', $1)", LEAST_STEP)
    await scene.hand.run("select setval('task_event_seq', $1)", LEAST_STEP)
    await scene.claimed(3)
    assert await happens(lambda: floors.tick(ctx), OTHERS_SECONDS) == 3
    floor = (await scene.floors())[ROUTE]
    assert floor >= LEAST_STEP
    ctx.feeder.relay()
    await ctx.feeder.round()
    assert ctx.feeder.feeding.cursors[ROUTE].seq == floor
    successor = duties.context(ctx.term, ctx.refs, clock=OwnClock(), lease=15.0)
    await successor.feeder.round()
    assert successor.feeder.feeding.cursors[ROUTE].seq == floor
    assert await floors.tick(ctx) == 0  # nothing has happened since


async def test_a_floor_that_is_not_true_is_lowered_and_its_tasks_are_hinted(scene: Scene) -> None:
    ctx = scene.ctx
    await scene.hand.run("insert into ready_floors values ('default', 'a:b', 'NORMAL', 1000000)")
    [task] = await scene.hand.submit(1)
    [seq] = await scene.seqs()
    worker = await scene.hand.worker()
    reader = scene.hand.reader(worker)
    await reader.read(count=9, want=9, block_ms=0)  # says that it is hungry
    await watch.tick(ctx)
    assert await ctx.feeder.round() == 0
    assert await floors.check(ctx) == 1
    assert (await scene.floors())[ROUTE] == seq - 1
    await ctx.feeder.round()
    await ctx.feeder.round()
    assert [ref.id for ref in await reader.read(count=9, want=9, block_ms=0)] == [task]
    assert await floors.check(ctx) == 0
    await reader.aclose()


READS = {
    "poll": (["default"], ["a:b"], 10, [], [], [], []),
    "demand": (["default"], 1000),
}


@pytest.mark.parametrize("name", READS)
async def test_with_a_floor_nobody_looks_at_what_an_old_snapshot_keeps(scene: Scene, name: str) -> None:
    other = await scene.hand.db.own_connection()
    try:
        async with other.transaction(isolation="repeatable_read"):
            await other.fetchval("select 1 from queues")
            await scene.ended(DEAD)
            before = await visited(scene.hand, name)
            await scene.raised(await scene.settled())
            after = await visited(scene.hand, name)
    finally:
        await other.close()
    assert before > 10 * after


async def visited(hand: Hand, name: str) -> int:
    """Pages of tasks_ready, and of the rows behind it, that a statement asks for."""
    [found] = await hand.run(f"explain (analyze, buffers, format json) {statement(name)}", *READS[name])
    pages = 0

    def walk(node: Any) -> None:
        nonlocal pages
        if node.get("Index Name") == "tasks_ready":
            pages += node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        for child in node.get("Plans", ()):
            walk(child)

    walk(json.loads(found[0])[0]["Plan"])
    return pages
