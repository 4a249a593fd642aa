"""A worker that reads references from Redis, with and without Redis there."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from core import queue_manager as queue
from core.domain.ordering import Lane, PriorityType, digest, list_key
from core.references import References
from tests.lookout import happens
from tests.signals import until
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from uuid import UUID

HIGH, NORMAL = PriorityType.HIGH, PriorityType.NORMAL


@pytest.fixture
async def home(environment: dict[str, str]) -> AsyncIterator[House]:
    async with house(environment["DATABASE_URL"]) as there:
        yield there


@pytest.fixture
async def refs(environment: dict[str, str]) -> AsyncIterator[References]:
    async with References(seconds=2.0) as there:
        yield there


@pytest.fixture
def worker(environment: dict[str, str]) -> Iterator[WorkerProcess]:
    with WorkerProcess({**environment, "TASKFLOW_REDIS": "on"}) as process:
        yield process


async def key(home: House, lane: Lane, priority: PriorityType = NORMAL) -> str:
    """The list that the one worker of this test reads."""
    async with home.database.connection() as tx:
        [row] = await queue.live_workers(tx)
    types = row.sync_types if lane is Lane.SYNC else row.async_types
    return list_key("default", priority, digest(types))


async def reading(refs: References, home: House, lane: Lane) -> None:
    """Wait until the lane reads: then it has said what it wants."""
    async with home.database.connection() as tx:
        [row] = await queue.live_workers(tx)

    async def there() -> bool:
        return bool(await refs.low.client.hexists("tf:free", f"{row.id}:{lane.value}"))

    await happens(there)


async def hint(refs: References, refs_of: str, ids: Sequence[UUID]) -> None:
    await refs.hint({refs_of: [task.bytes for task in ids]})


async def test_a_reference_starts_a_task_at_once(home: House, refs: References, worker: WorkerProcess) -> None:
    worker.ready()
    await reading(refs, home, Lane.ASYNC)
    refs_of = await key(home, Lane.ASYNC)
    waits = []
    for _ in range(5):
        begin = monotonic()
        [task] = await home.submit("anoop")
        await hint(refs, refs_of, [task])
        await home.becomes(task, "COMPLETED", within=10)
        waits.append(monotonic() - begin)
    assert sorted(waits)[2] < 0.5  # the safety poll comes only every five seconds


async def test_doubled_and_wrong_references_do_nothing(home: House, refs: References, worker: WorkerProcess) -> None:
    worker.ready()
    await reading(refs, home, Lane.ASYNC)
    refs_of = await key(home, Lane.ASYNC)
    ids = await home.submit("anoop", 20)
    foreign = await home.submit("unknown")  # a type that nobody announced
    await hint(refs, refs_of, [*ids, *reversed(ids), *ids, *foreign, uuid4()])
    rows = await home.ended(ids)
    assert {(row["status"], row["attempt"]) for row in rows} == {("COMPLETED", 1)}
    assert await home.statuses(foreign) == {"QUEUED"}


async def test_a_cordoned_worker_gives_its_references_back(
    home: House, refs: References, worker: WorkerProcess
) -> None:
    worker.ready()
    await reading(refs, home, Lane.ASYNC)
    refs_of = await key(home, Lane.ASYNC)
    async with home.database.begin() as tx:
        [me] = await queue.live_workers(tx)
        assert await queue.cordon(tx, [me.id])
    until(lambda: worker.said("cordoned: claiming nothing more"))
    ids = await home.submit("anoop", 10)
    await hint(refs, refs_of, ids)  # its blocking read may still take them

    async def wants_nothing() -> bool:
        said = await refs.low.client.hget("tf:free", f"{me.id}:async")
        return bool(said and said.startswith(b"0:"))

    async def all_back() -> bool:
        return int(await refs.low.client.llen(refs_of)) == len(ids)

    await happens(wants_nothing)
    await happens(all_back)
    assert await home.statuses(ids) == {"QUEUED"}
    async with home.database.begin() as tx:
        await queue.uncordon(tx, [me.id])
    await home.ended(ids)


async def test_a_task_without_any_reference_is_found_by_the_safety_poll(
    home: House, refs: References, worker: WorkerProcess
) -> None:
    worker.ready()
    await reading(refs, home, Lane.SYNC)
    ids = await home.submit("noop", 3) + await home.submit("anoop", 3)
    rows = await home.ended(ids, within=12)
    assert {row["status"] for row in rows} == {"COMPLETED"}


async def test_a_cancel_is_heard_without_waiting_for_a_beat(
    home: House, refs: References, environment: dict[str, str]
) -> None:
    slow = {**environment, "TASKFLOW_REDIS": "on", "HEARTBEAT_INTERVAL_SECONDS": "20"}
    with WorkerProcess(slow) as worker:
        worker.ready()
        tasks = await home.submit("asleep", 2, seconds=60)
        for task in tasks:
            await home.becomes(task, "IN_PROGRESS")
        async with home.database.begin() as tx:
            [row] = await queue.live_workers(tx)
            await queue.cancel(tx, tasks, owner_id=None, force=False, by="test")

        async def over() -> bool:
            await refs.publish_cancel(row.id, tasks, force=False)
            return await home.statuses(tasks) == {"CANCELLED"}

        await happens(over, within=5)


async def test_a_forced_cancel_kills_at_once(home: House, refs: References, environment: dict[str, str]) -> None:
    slow = {**environment, "TASKFLOW_REDIS": "on", "HEARTBEAT_INTERVAL_SECONDS": "20"}
    with WorkerProcess(slow, TASKFLOW_WORKER_CHILDREN="1") as worker:
        worker.ready()
        [stuck] = await home.submit("ignore_cancel", seconds=60)
        await home.becomes(stuck, "IN_PROGRESS")
        async with home.database.begin() as tx:
            [row] = await queue.live_workers(tx)
            await queue.cancel(tx, [stuck], owner_id=None, force=True, by="test")
        [next_one] = await home.submit("noop")

        async def over() -> bool:
            await refs.publish_cancel(row.id, [stuck], force=True)
            return (await home.row(next_one))["status"] == "COMPLETED"

        await happens(over, within=10)
        assert (await home.row(stuck))["status"] == "CANCELLED"


async def test_work_goes_on_when_redis_is_flushed(home: House, refs: References, worker: WorkerProcess) -> None:
    worker.ready()
    await reading(refs, home, Lane.ASYNC)
    refs_of = await key(home, Lane.ASYNC)
    await refs.low.client.flushall()
    await refs.high.client.flushall()
    await home.ended(await home.submit("anoop", 5), within=12)
    ids = await home.submit("anoop", 5)
    await hint(refs, refs_of, ids)
    await home.ended(ids, within=12)


async def test_work_goes_on_when_redis_is_not_there(home: House, environment: dict[str, str]) -> None:
    nowhere = {**environment, "TASKFLOW_REDIS": "on", "REDIS_PORT_HIGH": "1", "REDIS_PORT_LOW": "1"}
    with WorkerProcess(nowhere) as worker:
        worker.ready()
        begin = monotonic()
        await home.ended(await home.submit("noop", 5) + await home.submit("anoop", 50), within=12)
        await home.ended(await home.submit("noop", 5) + await home.submit("anoop", 50), within=12)
        assert monotonic() - begin < 8
