from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from core import config, telemetry
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.lifecycle import Cause
from core.domain.ordering import PriorityType
from core.domain.task import Ending, Reason
from core.errors import Deposed, Unavailable
from core.references import References
from services.scheduler import loop
from services.scheduler.ticks import (
    cancels,
    due,
    expire,
    gates,
    gauges,
    lists,
    overdue,
    rescue,
    retention,
    sweep,
    watch,
)
from tests.leading import Hand, OwnClock, leading
from tests.lookout import happens
from tests.system.proxy import Proxy, Toxic
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.scheduler.context import Context


@pytest.fixture
def clock() -> OwnClock:
    return OwnClock()


@pytest.fixture
async def refs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[References]:
    """Redis is off: every duty but the feeder's must work without it."""
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    async with References() as none:
        yield none


@pytest.fixture
async def ctx(environment: dict[str, str], refs: References, clock: OwnClock) -> AsyncIterator[Context]:
    async with leading(environment["DATABASE_URL"], refs, clock) as context:
        yield context


@pytest.fixture
async def hand(environment: dict[str, str], refs: References) -> AsyncIterator[Hand]:
    async with Database(environment["DATABASE_URL"], name="tf-test") as db:
        yield Hand(db, refs)


async def watched(ctx: Context, clock: OwnClock, seconds: float) -> int:
    """Watch for so long, four times a lease's third."""
    dead = 0
    for _ in range(int(seconds)):
        clock.advance(1.0)
        dead += await watch.tick(ctx)
    return dead


async def test_a_worker_that_stands_still_for_a_lease_dies_and_its_tasks_go_on(
    ctx: Context, clock: OwnClock, hand: Hand
) -> None:
    lost = await hand.worker()
    [task] = await hand.submit()
    [held] = await hand.claim([task], lost)
    assert await watched(ctx, clock, 15) == 0
    assert await watched(ctx, clock, 2) == 1
    assert await rescue.tick(ctx) == 1
    assert await hand.statuses([task]) == ["QUEUED"]
    ending = Ending(id=task, attempt=1, claim=held.claim, cause=Cause.SUCCEED, reason=Reason.RETURNED)
    async with hand.db.begin() as tx:
        assert await queue.finish(tx, [ending]) == []


async def test_a_worker_that_beats_lives_whatever_any_clock_says(ctx: Context, clock: OwnClock, hand: Hand) -> None:
    worker = await hand.worker()
    for _ in range(10):
        assert await watched(ctx, clock, 14) == 0
        await hand.beat(worker)
        await hand.run("update workers set beat_at = clock_timestamp() - interval '1 hour'")


async def test_a_gap_in_the_watching_gives_everybody_a_new_lease(ctx: Context, clock: OwnClock, hand: Hand) -> None:
    await hand.worker()
    assert await watched(ctx, clock, 14) == 0
    clock.advance(6)  # more than a third of a lease
    assert await watched(ctx, clock, 15) == 0
    assert await watched(ctx, clock, 2) == 1


async def test_a_database_that_was_away_kills_nobody(
    ctx: Context, clock: OwnClock, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hand.worker()
    assert await watched(ctx, clock, 14) == 0

    async def away(_: object) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "live_workers", away)
        with pytest.raises(Unavailable):
            await watched(ctx, clock, 1)
    assert await watched(ctx, clock, 14) == 0


async def test_a_beat_in_the_last_moment_wins_over_the_death(ctx: Context, clock: OwnClock, hand: Hand) -> None:
    worker = await hand.worker()
    assert await watched(ctx, clock, 1) == 0
    async with hand.db.begin() as tx:
        seen = (await queue.live_workers(tx))[0].beat_seq
    await hand.beat(worker)
    async with ctx.leading() as tx:
        assert not await queue.mark_dead(tx, worker, seen)


async def test_due_tasks_go_on_and_future_ones_wait(ctx: Context, hand: Hand) -> None:
    soon, later = datetime.now(UTC) + timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=1)
    [first] = await hand.submit(scheduled_at=soon)
    [second] = await hand.submit(scheduled_at=later)
    assert await hand.statuses([first, second]) == ["PENDING", "PENDING"]
    await happens(lambda: due.tick(ctx))
    assert await hand.statuses([first, second]) == ["QUEUED", "PENDING"]


async def test_the_gate_lets_one_through_and_the_next_when_that_one_ended(
    ctx: Context, clock: OwnClock, hand: Hand
) -> None:
    worker = await hand.worker()
    await watch.tick(ctx)
    tasks = await hand.submit(3, concurrency_key="k")
    assert await gates.tick(ctx) == 1
    assert await gates.tick(ctx) == 0
    [task] = [one for one, status in zip(tasks, await hand.statuses(tasks), strict=True) if status == "QUEUED"]
    [held] = await hand.claim([task], worker)
    ending = Ending(id=task, attempt=1, claim=held.claim, cause=Cause.SUCCEED, reason=Reason.RETURNED)
    async with hand.db.begin() as tx:
        assert len(await queue.finish(tx, [ending])) == 1
    clock.advance(1)  # Redis is off, so nobody brings the key: the walk finds it within a second
    assert await gates.tick(ctx) == 1


async def test_the_gate_waits_until_somebody_can_run_it(ctx: Context, hand: Hand) -> None:
    tasks = await hand.submit(1, concurrency_key="k")
    await watch.tick(ctx)
    assert await gates.tick(ctx) == 0
    await hand.worker()
    await watch.tick(ctx)
    assert await gates.tick(ctx) == 1
    assert await hand.statuses(tasks) == ["QUEUED"]


async def test_a_key_that_ends_makes_room_for_its_siblings_in_a_capped_queue(ctx: Context, hand: Hand) -> None:
    await hand.worker()
    async with hand.db.begin() as tx:
        await queue.ensure_queues(tx, ["default"])
        await queue.set_limits(tx, "default", max_concurrent=1, max_per_key=1)
    await watch.tick(ctx)
    await ctx.feeder._lay(0.0)
    first = await hand.submit(concurrency_key="a")
    assert await gates.tick(ctx) == 1
    second = await hand.submit(concurrency_key="b")
    assert await gates.tick(ctx) == 0
    async with hand.db.begin() as tx:
        moved = await queue.cancel(tx, first, owner_id=None, by="test", force=True)
    ctx.moved(moved)
    assert await gates.tick(ctx) == 1
    assert await hand.statuses(second) == ["QUEUED"]


async def test_keys_that_were_brought_in_vain_are_looked_at_again(
    environment: dict[str, str], refs: References, clock: OwnClock, hand: Hand
) -> None:
    with Proxy(environment["DATABASE_URL"]) as proxy:
        async with leading(proxy.url, refs, clock) as ctx:
            await hand.worker()
            await watch.tick(ctx)
            assert await gates.tick(ctx) == 0  # from now on no walk is due
            [first] = await hand.submit(concurrency_key="k")
            ctx.free([GateKey(queue="default", owner_id=1, key="k")])
            proxy.arm("-- How much of each cap", Toxic.REFUSE, at_commit=False)
            with pytest.raises(Unavailable):
                await gates.tick(ctx)
            assert await gates.tick(ctx) == 1
            assert await hand.statuses([first]) == ["QUEUED"]
            for statement in ("-- The settings of every queue", "-- The next keys that have a gated task"):
                clock.advance(1)
                brought = [GateKey(queue="default", owner_id=1, key="another")]
                ctx.free(brought)
                proxy.arm(statement, Toxic.REFUSE, at_commit=False)
                with pytest.raises(Unavailable):
                    await gates.tick(ctx)
                assert list(ctx.desk.keys) == brought


async def test_an_unrunnable_gated_task_gives_its_permit_back_after_a_minute(
    ctx: Context, clock: OwnClock, hand: Hand
) -> None:
    worker = await hand.worker()
    await watch.tick(ctx)
    tasks = await hand.submit(1, concurrency_key="k")
    await gates.tick(ctx)
    async with hand.db.begin() as tx:
        await queue.retire_worker(tx, worker, secret=SECRET)
    await watched(ctx, clock, 50)
    assert await sweep.tick(ctx) == 0
    await watched(ctx, clock, 20)
    assert await sweep.tick(ctx) == 1
    assert await hand.statuses(tasks) == ["PENDING"]


async def test_what_expires_before_a_start_ends(ctx: Context, hand: Hand) -> None:
    tasks = await hand.submit(1, expires_at=datetime.now(UTC) + timedelta(milliseconds=20))
    await happens(lambda: expire.tick(ctx))
    assert await hand.statuses(tasks) == ["EXPIRED"]


async def test_a_cancel_that_is_ignored_ends_after_its_grace(ctx: Context, hand: Hand) -> None:
    worker = await hand.worker()
    tasks = await hand.submit()
    await hand.claim(tasks, worker)
    async with hand.db.begin() as tx:
        await queue.cancel(tx, tasks, owner_id=None, by="test", grace=0.0)
    await happens(lambda: cancels.tick(ctx))
    assert await hand.statuses(tasks) == ["CANCELLED"]


async def test_the_backstop_of_a_time_limit_believes_its_own_clock_only(
    ctx: Context, clock: OwnClock, hand: Hand
) -> None:
    worker = await hand.worker()
    tasks = await hand.submit(1, timeout_seconds=40.0)
    await hand.claim(tasks, worker)
    await hand.run("update tasks set started_at = started_at - interval '1 hour'")  # a clock that jumped
    assert await overdue.tick(ctx) == 0
    clock.advance(39)
    assert await overdue.tick(ctx) == 0
    clock.advance(2)
    assert await overdue.tick(ctx) == 1
    assert await hand.statuses(tasks) == ["PENDING"]
    assert await hand.run("select 1 from task_events where cause = 'timeout' or message like '%limit%'")


async def test_depth_is_told_by_priority_and_only_by_who_leads(ctx: Context, hand: Hand) -> None:
    await hand.run("insert into queues (name) values ('default')")
    await hand.submit(3, priority=PriorityType.HIGH)
    held = (await hand.submit(2))[:1]
    await hand.claim(held, await hand.worker())
    assert await gauges.tick(ctx) == 0
    told = telemetry.metrics().queue_tasks
    found = {
        (sample.labels["status"], sample.labels["priority"]): sample.value
        for sample in next(iter(told.collect())).samples
        if sample.labels["queue"] == "default"
    }
    assert {label: number for label, number in found.items() if number} == {
        ("QUEUED", "HIGH"): 3,
        ("QUEUED", "NORMAL"): 1,
        ("IN_PROGRESS", "NORMAL"): 1,
    }
    assert len(found) == 9
    gauges.forget()
    assert next(iter(told.collect())).samples == []


async def test_retention_and_gauges_and_lists_run_on_anything(ctx: Context, hand: Hand) -> None:
    await hand.submit(3)
    assert await retention.tick(ctx) == 0
    assert await gauges.tick(ctx) == 0
    assert await lists.tick(ctx) == 0


async def test_a_deposed_leaders_ticks_write_nothing(ctx: Context, hand: Hand) -> None:
    tasks = await hand.submit(2, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
    await hand.run("update tasks set scheduled_at = clock_timestamp()")
    async with hand.db.begin() as tx:
        await queue.take_epoch(tx, uuid4())
    for tick in (due.tick, rescue.tick, expire.tick, cancels.tick, sweep.tick, retention.tick):
        with pytest.raises(Deposed):
            await tick(ctx)
    assert await hand.statuses(tasks) == ["PENDING", "PENDING"]


async def test_a_loop_outlives_errors_and_ends_with_its_term(ctx: Context) -> None:
    seen: list[str] = []

    async def tick(_: Context) -> int:
        seen.append("tick")
        if len(seen) == 1:
            raise Unavailable("away")
        if len(seen) == 2:
            raise RuntimeError("a mistake")
        if len(seen) < 5:
            return 10
        raise Deposed("over")

    nudger = asyncio.create_task(_nudge_on(ctx, "t"))
    with pytest.raises(Deposed):
        await asyncio.wait_for(loop.run(loop.Loop(name="t", tick=tick, every=3600.0, full=10), ctx), 10)
    nudger.cancel()
    assert len(seen) == 5


async def _nudge_on(ctx: Context, name: str) -> None:
    while True:
        ctx.nudge(name)
        await asyncio.sleep(0)
