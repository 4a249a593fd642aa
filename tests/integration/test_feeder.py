"""The feeder on real stores, with a clock of its own: nothing waits, and whatever becomes QUEUED is hinted in time."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import queue_manager as queue
from core.database import Database
from core.domain.lifecycle import Cause
from core.domain.ordering import digest, list_key
from core.domain.task import Ending, Reason, Submission
from core.references import Reader, Ref, References
from services.scheduler import duties
from services.scheduler.ticks import due, gates, lists, rescue, watch
from tests.leading import HIGH, LOW, NORMAL, Hand, OwnClock, leading
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from core.domain.ordering import PriorityType
    from services.scheduler.context import Context


class Scene:
    """A leader, one worker that is hungry, and a hand that does things to tasks."""

    def __init__(self, ctx: Context, hand: Hand, clock: OwnClock, worker: UUID, reader: Reader) -> None:
        self.ctx, self.hand, self.clock, self.worker, self.reader = ctx, hand, clock, worker, reader

    async def read(self, count: int = 100, want: int = 100) -> list[Ref]:
        return await self.reader.read(count=count, want=want, block_ms=0)

    async def hinted_within(self, seconds: float, wanted: Sequence[UUID]) -> float:
        """Let the feeder do its rounds until the references are there; how long it took on the leader's clock."""
        began, left = self.clock.at, set(wanted)
        while left and self.clock.at - began <= seconds:
            found = await self.read()
            left -= {ref.id for ref in found}
            if not left:
                break
            await self.ctx.feeder.round()
            self.clock.advance(0.5)
        assert not left, f"not hinted within {seconds} s"
        return self.clock.at - began

    async def past(self, seq_of: int = 5) -> list[UUID]:
        """Submit, hint and claim some tasks, so that the cursor is well beyond the beginning."""
        tasks = await self.hand.submit(seq_of)
        await self.hinted_within(5, tasks)
        await self.hand.claim(tasks, self.worker)
        return tasks

    async def end(self, task: UUID, cause: Cause, **more: Any) -> list[Any]:
        held = await self.hand.run("select attempt, claim from tasks where id = $1", task)
        ending = Ending(id=task, attempt=held[0]["attempt"], claim=held[0]["claim"], cause=cause, **more)
        async with self.hand.db.begin() as tx:
            return await queue.finish(tx, [ending])


@pytest.fixture
async def scene(environment: dict[str, str]) -> AsyncIterator[Scene]:
    clock, url = OwnClock(), environment["DATABASE_URL"]
    async with AsyncExitStack() as stack:
        refs = await stack.enter_async_context(References(seconds=2.0))
        hand = Hand(await stack.enter_async_context(Database(url, name="tf-test")), refs)
        async with hand.db.begin() as tx:
            await queue.ensure_queues(tx, ["default"])
        worker = await hand.worker()
        ctx = await stack.enter_async_context(leading(url, refs, clock))
        reader = hand.reader(worker)
        stack.push_async_callback(reader.aclose)
        made = Scene(ctx, hand, clock, worker, reader)
        await watch.tick(ctx)
        await made.read()  # says that it is hungry
        await ctx.feeder.round()
        yield made


async def test_the_order_is_strict_priority_then_seq(scene: Scene) -> None:
    low = await scene.hand.submit(3, priority=LOW)
    normal = await scene.hand.submit(3, priority=NORMAL)
    high = await scene.hand.submit(3, priority=HIGH)
    scene.clock.advance(1)
    assert await scene.ctx.feeder.round() == 9
    assert [ref.id for ref in await scene.read()] == [*high, *normal, *low]


async def test_the_windows_stay_shallow_and_are_refilled(scene: Scene) -> None:
    tasks = await scene.hand.submit(1000)
    scene.clock.advance(1)
    await scene.read(count=0, want=30)
    assert await scene.ctx.feeder.round() == 40
    assert await scene.ctx.feeder.round() == 0
    found = await scene.read(count=30, want=30)
    assert await scene.ctx.feeder.round() == 30
    found += await scene.read(count=100, want=30)
    assert [ref.id for ref in found] == tasks[:70]


async def test_a_full_window_of_low_tasks_is_not_in_the_way_of_a_high_one(scene: Scene) -> None:
    await scene.hand.submit(500, priority=LOW)
    scene.clock.advance(1)
    await scene.read(count=0, want=8)
    assert await scene.ctx.feeder.round() == 10
    [high] = await scene.hand.submit(1, priority=HIGH)
    scene.clock.advance(1)
    assert await scene.ctx.feeder.round() == 1
    assert (await scene.read(count=1))[0].id == high


async def test_a_lane_that_says_nothing_any_more_gets_nothing(scene: Scene) -> None:
    scene.clock.advance(3)
    await scene.hand.submit(5)
    assert await scene.ctx.feeder.round() == 0


async def test_types_that_nobody_announces_are_not_in_the_way(scene: Scene) -> None:
    await scene.hand.submit(2000, kind="un:known")
    tasks = await scene.hand.submit(10)
    assert await scene.hinted_within(1, tasks) <= 1


async def test_a_task_that_commits_thirty_seconds_late_is_hinted(scene: Scene) -> None:
    late = Submission(id=uuid4(), owner_id=1, type="a:b")
    async with scene.hand.db.begin() as tx:
        await queue.submit(tx, [late])
        await scene.past()
        for _ in range(60):
            scene.clock.advance(0.5)
            await scene.read(count=0)
            await scene.ctx.feeder.round()
    assert await scene.hinted_within(10, [late.id]) <= 10


async def test_an_api_whose_clock_is_an_hour_ahead_changes_nothing(scene: Scene) -> None:
    await scene.past()
    tasks = await scene.hand.submit(2)  # ids and times of clients play no part in the order
    await scene.hand.run("update tasks set created_at = created_at + interval '1 hour'")
    assert await scene.hinted_within(10, tasks) <= 10


@pytest.mark.parametrize("told", [True, False])
async def test_a_released_task_is_hinted_again(scene: Scene, told: bool) -> None:  # noqa: FBT001
    [task, *_] = await scene.past()
    moved = await scene.end(task, Cause.RELEASE, reason=Reason.RELEASED)
    if told:
        await scene.hand.refs.hint_moved(moved)
    assert await scene.hinted_within(10, [task]) <= (0.5 if told else 10)


async def test_a_retry_is_hinted_when_it_is_due(scene: Scene) -> None:
    [task, *_] = await scene.past()
    await scene.end(task, Cause.RETRY, reason=Reason.ERROR, failures=1)
    assert await due.tick(scene.ctx) == 1
    assert await scene.hinted_within(10, [task]) <= 0.5


async def test_a_rescued_task_is_hinted_again(scene: Scene) -> None:
    tasks = await scene.past()
    other = await scene.hand.worker()
    async with scene.hand.db.begin() as tx:
        await queue.retire_worker(tx, scene.worker, secret=SECRET)
    assert await rescue.tick(scene.ctx) == len(tasks)
    scene.reader = scene.hand.reader(other)
    assert await scene.hinted_within(10, tasks) <= 2
    await scene.reader.aclose()


@pytest.mark.parametrize("told", [True, False])
async def test_a_redriven_task_is_hinted(scene: Scene, told: bool) -> None:  # noqa: FBT001
    [task, *_] = await scene.past()
    await scene.end(task, Cause.GIVE_UP, reason=Reason.ERROR, failures=1)
    await scene.past()
    async with scene.hand.db.begin() as tx:
        moved = await queue.redrive(tx, [task], owner_id=None, by="test")
    if told:
        await scene.hand.refs.hint_moved(moved)
    assert await scene.hinted_within(10, [task]) <= (0.5 if told else 10)


@pytest.mark.parametrize("told", [True, False])
async def test_a_raised_priority_is_hinted_in_its_new_place(scene: Scene, told: bool) -> None:  # noqa: FBT001
    waiting = await scene.hand.submit(1000, priority=LOW)
    await scene.hand.submit(3, priority=HIGH)
    scene.clock.advance(1)
    await scene.read(count=0, want=8)
    await scene.ctx.feeder.round()
    async with scene.hand.db.begin() as tx:
        moved = await queue.reprioritize(tx, [waiting[900]], HIGH, owner_id=None, by="test")
    assert moved
    if told:
        await scene.hand.refs.hint_moved(moved)
    assert await scene.hinted_within(10, [waiting[900]]) <= 10


async def test_a_resumed_queue_starts_over(scene: Scene) -> None:
    await scene.past()
    async with scene.hand.db.begin() as tx:
        await queue.set_paused(tx, "default", paused=True)
    scene.clock.advance(1.5)
    await scene.ctx.feeder.round()
    tasks = await scene.hand.submit(3)
    with pytest.raises(AssertionError):
        await scene.hinted_within(15, tasks)
    async with scene.hand.db.begin() as tx:
        await queue.set_paused(tx, "default", paused=False)
    assert await scene.hinted_within(10, tasks) <= 2


async def test_a_new_type_is_hinted_from_its_beginning(scene: Scene) -> None:
    tasks = await scene.hand.submit(5, kind="new:type")
    await scene.past()
    worker = await scene.hand.worker(types=("a:b", "new:type"))
    scene.reader = scene.hand.reader(worker, types=("a:b", "new:type"))
    assert await scene.hinted_within(10, tasks) <= 2
    await scene.reader.aclose()


@pytest.mark.parametrize("server", ["both", "low", "high"])
async def test_a_flush_starts_over(scene: Scene, server: str) -> None:
    await scene.past()
    tasks = [*await scene.hand.submit(5), *await scene.hand.submit(5, priority=HIGH)]
    scene.clock.advance(1)
    assert await scene.ctx.feeder.round() == 10
    for one in (scene.hand.refs.high, scene.hand.refs.low):
        if server in {one.level, "both"}:
            await one.client.flushall()
    assert await scene.hinted_within(10, tasks) <= 1


async def test_a_reference_that_got_lost_is_given_again_within_fifteen_seconds(scene: Scene) -> None:
    tasks = await scene.hand.submit(3)
    scene.clock.advance(1)
    await scene.ctx.feeder.round()
    assert len(await scene.read()) == 3  # and never claimed
    assert 5 <= await scene.hinted_within(16, tasks) <= 16


async def test_what_a_dead_worker_read_is_hinted_again_though_nobody_is_hungry(scene: Scene) -> None:
    living = await scene.hand.worker()
    other = scene.hand.reader(living)
    scene.ctx.feeder.relay()
    await scene.hand.submit(300)
    scene.clock.advance(1)
    await scene.read(count=0, want=30)
    await scene.ctx.feeder.round()
    lost = {ref.id for ref in await scene.read(count=10, want=30)}

    async def claimed_in(seconds: int) -> set[UUID]:
        """What the living worker claims, which takes three a second and has a full window in front of it."""
        claimed: set[UUID] = set()
        for _ in range(seconds):
            scene.clock.advance(1)
            refs = await other.read(count=3, want=30, block_ms=0)
            claimed |= {task.id for task in await scene.hand.claim([ref.id for ref in refs], living)}
            await scene.ctx.feeder.round()
        return claimed

    assert lost.isdisjoint(await claimed_in(20))
    async with scene.hand.db.begin() as tx:
        await queue.retire_worker(tx, scene.worker, secret=SECRET)
    assert lost <= await claimed_in(25)
    await other.aclose()


async def test_what_waits_in_a_list_is_not_hinted_twice(scene: Scene) -> None:
    await scene.hand.submit(50)
    scene.clock.advance(1)
    total = 0
    for _ in range(80):
        await scene.read(count=0, want=30)
        total += await scene.ctx.feeder.round()
        scene.clock.advance(0.5)
    assert total == 40


async def test_out_of_memory_hints_nothing_and_loses_nothing(scene: Scene) -> None:
    refs = scene.hand.refs
    tasks = [*await scene.hand.submit(5), *await scene.hand.submit(5, priority=HIGH)]
    for one in (refs.high, refs.low):
        await one.client.config_set("maxmemory", "1mb")
    try:
        scene.clock.advance(1)
        assert await scene.ctx.feeder.round() == 0
    finally:
        for one in (refs.high, refs.low):
            await one.client.config_set("maxmemory", "0")
    assert await scene.hinted_within(10, tasks) <= 2


async def test_a_new_leader_knows_nothing_and_hints_everything(scene: Scene) -> None:
    tasks = await scene.hand.submit(5)
    scene.clock.advance(1)
    assert await scene.ctx.feeder.round() == 5
    await scene.hand.refs.delete(await scene.hand.refs.existing())
    scene.ctx = duties.context(scene.ctx.term, scene.hand.refs, clock=scene.clock, lease=15.0)
    assert await scene.hinted_within(10, tasks) <= 1


async def test_gated_tasks_go_through_the_gate_into_the_list(scene: Scene) -> None:
    tasks = await scene.hand.submit(2, concurrency_key="k")
    assert await gates.tick(scene.ctx) == 1
    [first] = [t for t, s in zip(tasks, await scene.hand.statuses(tasks), strict=True) if s == "QUEUED"]
    assert await scene.hinted_within(1, [first]) <= 0.5
    await scene.hand.claim([first], scene.worker)
    moved = await scene.end(first, Cause.SUCCEED, reason=Reason.RETURNED)
    await scene.hand.refs.hint_moved(moved)
    assert await gates.tick(scene.ctx) == 1
    assert await scene.hinted_within(1, [t for t in tasks if t != first]) <= 0.5


async def test_what_waits_at_the_gate_of_a_queue_goes_on_soon_after_the_queue_was_set_otherwise(scene: Scene) -> None:
    async def set_queue(*, most: int, paused: bool) -> None:
        async with scene.hand.db.begin() as tx:
            await queue.ensure_queues(tx, ["default"])
            await queue.set_limits(tx, "default", max_concurrent=most, max_per_key=1)
            await queue.set_paused(tx, "default", paused=paused)

    await set_queue(most=1, paused=False)
    await scene.hand.submit(3)
    assert await gates.tick(scene.ctx) == 1
    for settings, passes in (({"most": 2, "paused": False}, 1), ({"most": 9, "paused": True}, 0)):
        await set_queue(**settings)
        scene.clock.advance(1)
        assert await gates.tick(scene.ctx) == passes
    await set_queue(most=9, paused=False)
    scene.clock.advance(1)
    assert await gates.tick(scene.ctx) == 1
    scene.clock.advance(1)
    assert (await gates.tick(scene.ctx), scene.ctx.desk.walk_due - scene.clock.at) == (0, 9.0)


async def test_the_lists_of_a_worker_that_left_are_deleted_in_time(scene: Scene) -> None:
    old = list_key("default", NORMAL, digest(["gone:by"]))
    await scene.hand.refs.hint({old: [uuid4().bytes]})
    await scene.hand.submit(5)
    scene.clock.advance(1)
    await scene.ctx.feeder.round()
    here = await scene.hand.refs.existing()
    for _ in range(12):
        assert await lists.tick(scene.ctx) == 0
        scene.clock.advance(5)
    assert await lists.tick(scene.ctx) == 1
    assert await scene.hand.refs.existing() == here - {old} != set()


# ── credits ─────────────────────────────────────────────────────────────────────────────────────────────────


async def flushed(scene: Scene, count: int, priority: PriorityType = NORMAL) -> list[UUID]:
    """What an API does: insert, commit, hint."""
    asked = [Submission(id=uuid4(), owner_id=1, type="a:b", priority=priority) for _ in range(count)]
    async with scene.hand.db.begin() as tx:
        born = await queue.submit(tx, asked)
    await scene.hand.refs.hint_submitted(zip(asked, born, strict=True))
    return [one.id for one in asked]


async def test_a_lonely_task_needs_no_leader(scene: Scene) -> None:
    scene.clock.advance(1)
    await scene.ctx.feeder.round()
    for priority in (NORMAL, HIGH):
        tasks = await flushed(scene, 1, priority)
        found = await scene.read()
        assert [ref.id for ref in found] == tasks
        await scene.hand.claim(tasks, scene.worker)
    scene.clock.advance(1)
    assert await scene.ctx.feeder.round() == 0


async def test_what_lacked_credit_is_fed_at_once(scene: Scene) -> None:
    scene.clock.advance(1)
    await scene.read(count=0, want=3)
    await scene.ctx.feeder.round()
    tasks = await flushed(scene, 10)
    await scene.read(count=0, want=30)
    await scene.ctx.feeder.round()  # the wake names the queue, so no second has to pass
    assert {ref.id for ref in await scene.read()} == set(tasks)


async def test_what_an_api_forgot_to_hint_is_fed_within_three_seconds(scene: Scene) -> None:
    scene.clock.advance(1)
    await scene.ctx.feeder.round()
    assert scene.ctx.feeder.ledger.out == {"default"}
    tasks = await scene.hand.submit(3, wakes=False)
    assert 1 <= await scene.hinted_within(10, tasks) <= 3


async def test_a_backlog_a_pause_and_a_cap_take_credits_back(scene: Scene) -> None:
    refs, ledger = scene.hand.refs, scene.ctx.feeder.ledger
    scene.clock.advance(1)
    await scene.ctx.feeder.round()
    assert await refs.low.client.exists("tf:route:default")
    await scene.hand.submit(500)
    for _ in range(5):
        scene.clock.advance(1)
        await scene.read(count=0, want=30)
        await scene.ctx.feeder.round()
    assert ledger.out == set()
    assert not await refs.low.client.exists("tf:route:default")
    await scene.hand.run("delete from tasks")
    for change in ("paused = true", "max_concurrent = 1, paused = false"):
        await scene.hand.run("update queues set " + change)
        for _ in range(8):
            scene.clock.advance(1)
            await scene.read(want=30)
            await scene.ctx.feeder.round()
        assert ledger.out == set()
    await scene.hand.run("update queues set max_concurrent = 0")
    for _ in range(3):
        scene.clock.advance(1)
        await scene.read(want=30)
        await scene.ctx.feeder.round()
    assert ledger.out == {"default"}
