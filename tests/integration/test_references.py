from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from core import config, redis_client
from core.domain.gates import GateKey
from core.domain.lifecycle import TaskStatus
from core.domain.ordering import Lane, PriorityType, digest, list_key
from core.domain.task import Moved, Submission, Submitted
from core.redis_client import RedisDown, Server, close_async_clients, get_async_redis_client, get_redis
from core.references import Offer, Reader, References
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HIGH, NORMAL, LOW = PriorityType.HIGH, PriorityType.NORMAL, PriorityType.LOW
TYPES = ("a.b:c",)
D = digest(TYPES)


@pytest.fixture
async def refs(environment: dict[str, str]) -> AsyncIterator[References]:
    async with References(seconds=2.0) as open_refs:
        yield open_refs


@asynccontextmanager
async def reading(
    refs: References, worker: UUID | None = None, queues: tuple[str, ...] = ("q",)
) -> AsyncIterator[Reader]:
    reader = refs.reader(worker=worker or uuid4(), lane=Lane.SYNC, queues=queues, types=TYPES)
    try:
        yield reader
    finally:
        await reader.aclose()


def ids(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


async def hint(refs: References, priority: PriorityType, some: list[UUID], queue: str = "q") -> None:
    await refs.hint({list_key(queue, priority, D): [one.bytes for one in some]})


async def waiting(refs: References, priority: PriorityType = NORMAL) -> int:
    key = list_key("q", priority, D)
    return (await refs.snapshot([key], "1")).waiting[key]


async def reads(refs: References) -> bool:
    return bool(await refs.low.client.hlen("tf:free"))


async def blocked(refs: References) -> bool:
    return all([(await server.client.info("clients"))["blocked_clients"] for server in (refs.high, refs.low)])


async def give_up(refs: References, reader: Reader) -> None:
    """Begin to wait for a reference, and do not wait for the answer."""
    read = asyncio.create_task(reader.read(count=1, want=1, block_ms=20_000))
    await happens(lambda: reads(refs))
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read


async def memory(refs: References, limit: str) -> None:
    for server in (refs.high, refs.low):
        await server.client.config_set("maxmemory", limit)


async def test_high_comes_first_and_nothing_is_taken_beyond_what_was_asked(refs: References) -> None:
    low, normal, high = ids(2), ids(2), ids(2)
    await hint(refs, LOW, low)
    await hint(refs, NORMAL, normal)
    await hint(refs, HIGH, high)
    async with reading(refs) as reader:
        first = await reader.read(count=3, want=3)
        assert [ref.id for ref in first] == [*high, normal[0]]
        second = await reader.read(count=9, want=9)
        assert [ref.id for ref in second] == [normal[1], *low]


async def test_what_was_read_has_left_the_list_and_what_is_given_back_comes_first(refs: References) -> None:
    high, normal = ids(2), ids(4)
    await hint(refs, HIGH, high)
    await hint(refs, NORMAL, normal)
    async with reading(refs) as reader, reading(refs) as other:
        found = await reader.read(count=4, want=4)
        assert [ref.id for ref in found] == [*high, *normal[:2]]
        assert (await waiting(refs, HIGH), await waiting(refs)) == (0, 2)
        await reader.give_back(found[1:])
        assert [ref.id for ref in await other.read(count=9, want=9)] == [high[1], *normal]


async def test_a_thousand_references_survive_the_packing(refs: References) -> None:
    many = ids(9000)
    await hint(refs, NORMAL, many)
    async with reading(refs) as reader:
        found = await reader.read(count=9000, want=1)
        assert [ref.id for ref in found] == many
        assert await waiting(refs) == 0


@pytest.mark.parametrize("priority", [HIGH, NORMAL])
async def test_a_reader_that_waits_is_woken_by_a_reference_on_either_server(
    refs: References, priority: PriorityType
) -> None:
    one = ids(1)
    async with reading(refs) as reader:
        read = asyncio.create_task(reader.read(count=1, want=1, block_ms=20_000))
        await happens(lambda: reads(refs))
        await hint(refs, priority, one)
        assert [ref.id for ref in await asyncio.wait_for(read, 5)] == one


async def test_a_read_that_its_caller_gave_up_loses_nothing(refs: References) -> None:
    one = ids(1)
    async with reading(refs) as reader:
        await give_up(refs, reader)
        await hint(refs, NORMAL, one)
        assert [ref.id for ref in await reader.read(count=1, want=1, block_ms=0)] == one


async def test_a_wait_that_cannot_be_woken_ends_with_nothing(refs: References) -> None:
    async with reading(refs) as reader:
        read = asyncio.create_task(reader.read(count=1, want=1, block_ms=20_000))
        assert await happens(lambda: blocked(refs))
        for server in (refs.high, refs.low):
            server.breaker.failed()  # so that nobody asks it for anything just now
        await reader.aclose()
        assert await asyncio.wait_for(read, 5) == []


async def test_two_readers_share_and_nobody_gets_twice(refs: References) -> None:
    some = ids(4)
    async with reading(refs) as one, reading(refs) as two:
        await hint(refs, NORMAL, some)
        mine, yours = await one.read(count=2, want=2), await two.read(count=4, want=4)
        assert [ref.id for ref in mine + yours] == some


async def test_what_a_reader_took_and_its_caller_never_heard_of_goes_back(refs: References) -> None:
    one = ids(1)
    async with reading(refs) as reader:
        await give_up(refs, reader)
        await hint(refs, NORMAL, one)
        await happens(lambda: taken(refs))
    async with reading(refs) as other:
        assert [ref.id for ref in await other.read(count=1, want=1, block_ms=0)] == one


async def taken(refs: References) -> bool:
    return not await waiting(refs)


async def test_flushall_leaves_a_reader_waiting(refs: References) -> None:
    async with reading(refs) as reader:
        read = asyncio.create_task(reader.read(count=1, want=1, block_ms=20_000))
        await happens(lambda: reads(refs))
        await refs.low.client.flushall()
        await refs.high.client.flushall()
        one = ids(1)
        await hint(refs, NORMAL, one)
        assert [ref.id for ref in await asyncio.wait_for(read, 5)] == one


async def test_a_lane_says_what_it_wants_and_leaves_without_a_trace(refs: References) -> None:
    worker = uuid4()
    async with reading(refs, worker) as reader:
        await reader.read(count=2, want=7, block_ms=0)
        first = (await refs.snapshot([], "1")).wants[worker, Lane.SYNC]
        await reader.report(0)
        second = (await refs.snapshot([], "1")).wants[worker, Lane.SYNC]
        assert (first.number, second.number) == (7, 0)
        assert first.turn != second.turn
    assert (await refs.snapshot([], "1")).wants == {}


async def test_a_snapshot_tells_what_waits_and_notices_a_flush(refs: References) -> None:
    await hint(refs, NORMAL, ids(5))
    key = list_key("q", NORMAL, D)
    assert (await refs.snapshot([key], "1")).lost
    async with reading(refs) as reader:
        await reader.read(count=2, want=2)
        seen = await refs.snapshot([key, list_key("q", HIGH, D)], "1")
        assert (seen.lost, seen.waiting[key], seen.waiting[list_key("q", HIGH, D)]) == (False, 3, 0)
    await refs.high.client.flushall()
    assert (await refs.snapshot([key], "1")).lost


async def test_out_of_memory_is_down_and_passes(refs: References) -> None:
    await hint(refs, NORMAL, ids(3))
    async with reading(refs) as reader:
        found = await reader.read(count=2, want=3)
        await memory(refs, "1mb")
        try:
            with pytest.raises(RedisDown):
                await hint(refs, NORMAL, ids(1))
            # The high server has nothing to write for a read, so only the low one counts as down.
            assert await reader.read(count=1, want=1, block_ms=0) == []
            assert reader.degraded
            await reader.give_back(found)
            await refs.wake()
            await refs.hint_submitted([_submitted(NORMAL)])
        finally:
            await memory(refs, "0")
        assert len(await reader.read(count=9, want=9)) == 1
        assert not reader.degraded


async def test_switched_off_is_down_at_once_and_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    async with References() as refs, reading(refs) as reader:
        with pytest.raises(RedisDown):
            await reader.read(count=1, want=1)
        assert reader.degraded
        await reader.report(1)
        await refs.wake()
        await refs.hint_submitted([_submitted(NORMAL)])
        assert await refs.drain_gates() == []
        with pytest.raises(RedisDown):
            get_async_redis_client()


@pytest.mark.usefixtures("environment")
async def test_a_dead_server_costs_one_short_wait_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT_LOW", "1")
    config.reload()
    now = 100.0
    server = Server("low", monotonic=lambda: now)
    calls = 0

    async def ask(client: object) -> None:
        nonlocal calls
        calls += 1
        await client.ping()  # type: ignore[attr-defined]

    for _ in range(50):
        with pytest.raises(RedisDown):
            await server.call(ask)
    assert calls == 1
    now += 1.1
    for _ in range(50):
        with pytest.raises(RedisDown):
            await server.call(ask)
    assert calls == 2
    await server.aclose()


@pytest.mark.usefixtures("environment")
async def test_one_server_down_leaves_the_other_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT_HIGH", "1")
    config.reload()
    async with References(seconds=2.0) as refs, reading(refs) as reader:
        one = ids(1)
        await hint(refs, NORMAL, one)
        assert [ref.id for ref in await reader.read(count=1, want=1)] == one
        assert reader.degraded


def _submitted(priority: PriorityType, owner: int = 1, **more: object) -> tuple[Submission, Submitted]:
    asked = Submission(id=uuid4(), owner_id=owner, type=TYPES[0], queue="q", priority=priority)
    born = {"status": TaskStatus.QUEUED, "gated": False, **more}
    return asked, Submitted(id=asked.id, created_at=datetime(2026, 1, 1, tzinfo=UTC), **born)  # type: ignore[arg-type]


async def test_credit_is_taken_by_the_api_and_what_it_lacks_becomes_a_wake(refs: References) -> None:
    await refs.offer_credits({"q": Offer(routes={TYPES[0]: D}, high={D: 8}, low={D: 3})})
    rows = [_submitted(NORMAL) for _ in range(5)]
    await refs.hint_submitted(rows[:2])
    assert not await refs.low.client.exists("tf:wake")
    await refs.low.client.set("tf:dry", "1")  # a lane could run more
    await refs.hint_submitted(rows[2:])
    assert await refs.wait_for_wake(1) == {"q"}
    assert await waiting(refs) == 3
    async with reading(refs) as reader:
        assert [ref.id for ref in await reader.read(count=9, want=9)] == [asked.id for asked, _ in rows[:3]]


async def test_nobody_takes_all_of_the_credit_for_high_tasks(refs: References) -> None:
    await refs.offer_credits({"q": Offer(routes={TYPES[0]: D}, high={D: 8}, low={D: 8})})
    await refs.hint_submitted([_submitted(HIGH, owner=1) for _ in range(100)])
    assert await waiting(refs, HIGH) == 4
    await refs.hint_submitted([_submitted(HIGH, owner=2)])
    assert await waiting(refs, HIGH) == 5


async def test_credit_that_is_taken_back_cannot_be_used(refs: References) -> None:
    await refs.offer_credits({"q": Offer(routes={TYPES[0]: D}, high={D: 8}, low={D: 8})})
    await refs.offer_credits({"q": Offer()})
    await refs.hint_submitted([_submitted(NORMAL), _submitted(HIGH)])
    assert await waiting(refs) == await waiting(refs, HIGH) == 0


async def test_without_a_leader_its_last_routes_are_followed(refs: References) -> None:
    offer = {"q": Offer(routes={TYPES[0]: D}, high={D: 8}, low={D: 8})}
    await refs.offer_credits(offer)
    assert 0 < await refs.low.client.pttl(f"tf:credit:q:{D}") <= 2000
    await refs.low.client.unlink(f"tf:credit:q:{D}")  # as time does it
    async with reading(refs) as reader:
        await refs.lead()
        assert 0 < await refs.low.client.pttl("tf:led") <= 2000
        await refs.hint_submitted([_submitted(NORMAL)])
        assert await waiting(refs) == 0, "who leads has not renewed it on purpose"
        await reader.read(count=1, want=1, block_ms=0)
        assert reader.led
        await refs.low.client.unlink("tf:led")
        await reader.read(count=1, want=1, block_ms=0)
        assert not reader.led
    await refs.hint_submitted([_submitted(NORMAL) for _ in range(1200)])
    await refs.hint_submitted([_submitted(HIGH) for _ in range(3)])
    assert await waiting(refs) == 1000
    assert await waiting(refs, HIGH) == 3
    assert not await refs.low.client.exists(f"tf:credit:q:{D}"), "nothing is taken from what is not there"
    await refs.offer_credits({"q": Offer()})
    await refs.hint_submitted([_submitted(HIGH)])
    assert await waiting(refs, HIGH) == 3, "it had taken the route back"


async def test_a_submit_without_credit_wakes_the_leader_only_when_a_lane_is_dry(refs: References) -> None:
    await refs.hint_submitted([_submitted(NORMAL)])
    assert await refs.low.client.llen("tf:wake") == 0
    async with reading(refs) as reader:
        await reader.read(count=1, want=1, block_ms=0)
        assert await refs.wait_for_wake(1) == {""}, "the lane that runs dry tells of what was missed"
        assert (await refs.snapshot([], "1")).wakes == {"q"}
        await refs.hint_submitted([_submitted(NORMAL)])
        assert await refs.wait_for_wake(1) == {"q"}
    assert (await refs.snapshot([], "1")).wakes == set()


async def test_a_lane_that_runs_dry_wakes_the_leader_while_there_is_work(refs: References) -> None:
    async with reading(refs) as reader:
        await reader.read(count=1, want=1, block_ms=0)
        assert await refs.low.client.llen("tf:wake") == 0
        await refs.snapshot([], "1", backlog=True)
        await reader.read(count=1, want=1, block_ms=0)
        assert await refs.wait_for_wake(1) == {""}


async def test_gated_and_moved_rows_reach_the_gate_and_the_feeder(refs: References) -> None:
    await refs.hint_submitted([_submitted(NORMAL, status=TaskStatus.PENDING, gated=True)])
    row = {
        "id": uuid4(), "previous": TaskStatus.IN_PROGRESS, "queue": "q", "owner_id": 7, "type": TYPES[0],
        "priority": NORMAL, "attempt": 1,
    }  # fmt: skip
    await refs.hint_moved(
        [
            Moved(**row, status=TaskStatus.COMPLETED, concurrency_key="k", gated=True),
            Moved(**row, status=TaskStatus.COMPLETED, concurrency_key="k", gated=True),
            Moved(**row, status=TaskStatus.QUEUED, concurrency_key="", gated=False),
            Moved(**row, status=TaskStatus.COMPLETED, concurrency_key="", gated=False),
        ]
    )
    assert await refs.drain_gates() == [
        GateKey(queue="q", owner_id=1, key=""),
        GateKey(queue="q", owner_id=7, key="k"),
    ]
    seen = await refs.snapshot([], "1")
    assert (seen.again, seen.wakes) == ({("q", TYPES[0], NORMAL)}, {""})
    assert (await refs.snapshot([], "1")).again == frozenset()


async def test_lists_are_found_and_deleted(refs: References) -> None:
    await hint(refs, NORMAL, ids(1))
    await hint(refs, HIGH, ids(1))
    both = {list_key("q", NORMAL, D), list_key("q", HIGH, D)}
    assert await refs.existing() == both
    await refs.delete(both)
    assert await refs.existing() == set()


async def test_a_cancel_reaches_the_worker_at_once(refs: References) -> None:
    worker, some = uuid4(), ids(2)
    heard = refs.cancels(worker)
    ask = asyncio.ensure_future(anext(heard))
    await happens(lambda: refs.low.client.publish(f"tf:w:{worker}", b"not msgpack"))
    await refs.publish_cancel(worker, some, force=True)
    assert await asyncio.wait_for(ask, 5) == (some, True)
    await heard.aclose()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("environment")
async def test_the_public_faces_are_lazy_and_two() -> None:
    assert redis_client.redis_high is get_redis()
    assert redis_client.redis_low is redis_client.get_redis_client("NORMAL")
    assert redis_client.redis_low is not redis_client.redis_high
    assert get_async_redis_client() is get_async_redis_client("low") is not get_async_redis_client("high")
    assert await get_async_redis_client("high").ping()
    await close_async_clients()
