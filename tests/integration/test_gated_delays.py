"""A task with a concurrency key, or of a capped queue, that waits for a time: nobody but promote_due watches the time.

The test's clock stands still, so no walk over all keys comes round: what starts here was handed to the gate.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from core import config, lookups, search
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Moved, Reason, Submission
from core.references import References
from services.scheduler.ticks import due, expire, gates, rescue, watch
from tests.leading import Hand, OwnClock, leading
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from services.scheduler.context import Context

KINDS: dict[str, dict[str, str]] = {
    "free": {},
    "keyed": {"concurrency_key": "k"},
    "capped": {"queue": "capped"},
}
KEYED = KINDS["keyed"]
HOUR = timedelta(hours=1)
COLUMNS = "select status::text, gated, scheduled_at > clock_timestamp() as later from tasks where id = $1"
DUE = "update tasks set scheduled_at = clock_timestamp() where id = any ($1)"
# As 9b01780 left a delayed task with a key: the gate's from the beginning.
OLD_ROW = "update tasks set gated = true where id = any ($1)"


@pytest.fixture
async def refs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[References]:
    """Redis is off, so that nothing but what a tick itself hands over reaches the gate."""
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    async with References() as none:
        yield none


@pytest.fixture
def clock() -> OwnClock:
    return OwnClock()


@pytest.fixture
async def hand(environment: dict[str, str], refs: References) -> AsyncIterator[Hand]:
    async with Database(environment["DATABASE_URL"], name="tf-test") as db:
        yield Hand(db, refs)


@pytest.fixture
async def ctx(environment: dict[str, str], refs: References, hand: Hand, clock: OwnClock) -> AsyncIterator[Context]:
    """A leader that knows a worker, and whose first walk is over."""
    async with leading(environment["DATABASE_URL"], refs, clock) as context:
        await hand.worker(queues=("default", "capped"))
        await cap(hand, "capped", 100)
        await watch.tick(context)
        assert await gates.tick(context) == 0
        yield context


async def cap(hand: Hand, name: str, most: int) -> None:
    async with hand.db.begin() as tx:
        await queue.ensure_queues(tx, [name])
        await queue.set_limits(tx, name, max_concurrent=most, max_per_key=1)


async def submit(hand: Hand, ctx: Context, kind: str, count: int = 1) -> list[UUID]:
    """Submit tasks that may start at once, and tell the gate of them, as the API's hint does."""
    said = KINDS[kind]
    if kind != "free":
        ctx.free([GateKey(queue=said.get("queue", "default"), owner_id=1, key=said.get("concurrency_key", ""))])
    return await hand.submit(count, **said)


async def delayed(hand: Hand, kind: str, **more: Any) -> list[UUID]:
    return await hand.submit(1, scheduled_at=datetime.now(UTC) + HOUR, **KINDS[kind], **more)


async def running(hand: Hand, ctx: Context, kind: str) -> Any:
    """Return the claim of a new task that has started, at a worker of its own."""
    [task] = await submit(hand, ctx, kind)
    await gates.tick(ctx)
    [held] = await hand.claim([task], await hand.worker(queues=("default", "capped")))
    return held


async def retry(hand: Hand, held: Any, seconds: float) -> list[Moved]:
    ending = Ending(
        id=held.id, attempt=held.attempt, claim=held.claim, cause=Cause.RETRY, reason=Reason.RETRY_LATER, delay=seconds
    )
    async with hand.db.begin() as tx:
        return list(await queue.finish(tx, [ending]))


async def waits_for_a_time(hand: Hand, task: UUID) -> None:
    assert [tuple(row) for row in await hand.run(COLUMNS, task)] == [("PENDING", False, True)]


async def starts_when_due(hand: Hand, ctx: Context, task: UUID) -> None:
    await hand.run(DUE, [task])
    assert await due.tick(ctx) == 1
    await gates.tick(ctx)
    assert await hand.statuses([task]) == ["QUEUED"]


async def waiting_code(hand: Hand, task: UUID) -> str:
    async with hand.db.connection() as tx:
        row = await search.get(tx, task, owner_id=1)
        assert row is not None
        found = await lookups.explain(tx, row)
    assert found is not None
    return found.code.value


async def test_a_delayed_task_starts_when_it_is_due(ctx: Context, hand: Hand) -> None:
    for kind in KINDS:
        [task] = await delayed(hand, kind)
        await waits_for_a_time(hand, task)
        await starts_when_due(hand, ctx, task)


async def test_a_retry_starts_when_it_is_due(ctx: Context, hand: Hand) -> None:
    for kind in KINDS:
        held = await running(hand, ctx, kind)
        await retry(hand, held, 3600)
        await waits_for_a_time(hand, held.id)
        await starts_when_due(hand, ctx, held.id)


async def test_a_rescue_with_a_pause_starts_when_it_is_due(ctx: Context, hand: Hand) -> None:
    for kind in KINDS:
        held = await running(hand, ctx, kind)
        await hand.run("update tasks set worker_deaths = 1 where id = $1", held.id)
        await hand.run(
            "update workers set state = 'dead' where id = (select worker_id from tasks where id = $1)", held.id
        )
        assert await rescue.tick(ctx) == 1
        await waits_for_a_time(hand, held.id)
        await starts_when_due(hand, ctx, held.id)


async def test_a_retry_without_a_delay_stays_with_the_gate(ctx: Context, hand: Hand) -> None:
    held = await running(hand, ctx, "keyed")
    [moved] = await retry(hand, held, 0)
    assert [tuple(row)[:2] for row in await hand.run(COLUMNS, held.id)] == [("PENDING", True)]
    ctx.moved([moved])
    assert await gates.tick(ctx) == 1


async def test_the_next_of_a_key_starts_at_once_while_its_holder_waits_for_a_minute(ctx: Context, hand: Hand) -> None:
    held = await running(hand, ctx, "keyed")
    [after] = await hand.submit(1, **KEYED)
    assert await gates.tick(ctx) == 0
    [moved] = await retry(hand, held, 60)
    assert (moved.status, moved.gated) == ("PENDING", True)  # so the worker tells the gate of the permit
    ctx.moved([moved])
    assert await gates.tick(ctx) == 1
    assert await hand.statuses([after]) == ["QUEUED"]
    await waits_for_a_time(hand, held.id)


async def test_a_submit_returns_whether_the_gate_is_to_be_told(ctx: Context, hand: Hand) -> None:
    for kind, gated in (("free", False), ("keyed", True), ("capped", True)):
        for moment in (None, datetime.now(UTC) + HOUR):
            asked = Submission(id=uuid4(), owner_id=1, type="a:b", scheduled_at=moment, **KINDS[kind])
            async with hand.db.begin() as tx:
                [born] = await queue.submit(tx, [asked])
            assert (kind, born.gated) == (kind, gated)


async def test_limits_that_change_while_a_task_waits_for_a_time_hold_when_it_is_due(ctx: Context, hand: Hand) -> None:
    [freed] = await delayed(hand, "capped")
    await cap(hand, "capped", 0)
    await hand.run(DUE, [freed])
    assert await due.tick(ctx) == 1
    assert await hand.statuses([freed]) == ["QUEUED"]  # no gate was asked
    await hand.claim([freed], await hand.worker(queues=("capped",)))
    [caught] = await delayed(hand, "capped")
    await cap(hand, "capped", 1)
    await hand.run(DUE, [caught])
    assert await due.tick(ctx) == 1
    assert await gates.tick(ctx) == 0
    assert await hand.statuses([freed, caught]) == ["IN_PROGRESS", "PENDING"]


async def test_cancel_and_expiry_end_a_delayed_task_of_a_key(ctx: Context, hand: Hand) -> None:
    [cancelled] = await delayed(hand, "keyed")
    [expired] = await delayed(hand, "keyed", expires_at=datetime.now(UTC) + timedelta(milliseconds=20))
    async with hand.db.begin() as tx:
        [moved] = await queue.cancel(tx, [cancelled], owner_id=1, by="me")
    assert (moved.previous, moved.status, moved.gated) == ("PENDING", "CANCELLED", True)
    await happens(lambda: expire.tick(ctx))
    assert await hand.statuses([cancelled, expired]) == ["CANCELLED", "EXPIRED"]


async def test_why_a_task_waits_is_first_its_time_and_then_its_key(ctx: Context, hand: Hand) -> None:
    held = await running(hand, ctx, "keyed")
    [task] = await delayed(hand, "keyed")
    assert await waiting_code(hand, task) == "delayed"
    await hand.run(DUE, [task])
    for _ in range(2):  # before and after it was handed to the gate
        assert await waiting_code(hand, task) == "concurrency_limit"
        await due.tick(ctx)
    await retry(hand, held, 3600)
    assert await waiting_code(hand, held.id) == "retry_backoff"


async def test_a_row_that_an_older_release_has_written_is_found_by_the_walk(
    ctx: Context, hand: Hand, clock: OwnClock
) -> None:
    [task] = await delayed(hand, "keyed")
    await hand.run(OLD_ROW, [task])
    await hand.run(DUE, [task])
    assert (await due.tick(ctx), await gates.tick(ctx)) == (0, 0)
    clock.advance(1)  # the walk's pace without Redis
    assert await gates.tick(ctx) == 1
    assert await hand.statuses([task]) == ["QUEUED"]


async def test_keys_of_many_tasks_that_fall_due_together_leave_the_gate_free_for_others(
    ctx: Context, hand: Hand
) -> None:
    brought = [GateKey(queue="default", owner_id=1, key=f"k{number}") for number in range(gates.SLICE + 1)]
    await hand.submit(1, concurrency_key=brought[-1].key)
    ctx.free(brought)
    nudge = ctx.nudges.setdefault("gates", asyncio.Event())
    assert (await gates.tick(ctx), list(ctx.desk.keys), nudge.is_set()) == (0, brought[-1:], True)
    nudge.clear()
    assert (await gates.tick(ctx), list(ctx.desk.keys), nudge.is_set()) == (1, [], False)
