"""A lane's polls: they go on where the last one ended, and nothing stays behind for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import clock
from core import queue_manager as queue
from core.domain.ordering import PriorityType
from core.domain.task import WorkerFace
from services.worker.polling import Polling
from tests.worker_secret import SECRET
from tests.working import House, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

ECHO, NOOP = "tests.handlers:echo", "tests.handlers:noop"
HIGH, NORMAL, LOW = PriorityType.HIGH, PriorityType.NORMAL, PriorityType.LOW


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Lane:
    """What an intake does with its polls, without children."""

    def __init__(self, home: House, worker: UUID) -> None:
        self.polling = Polling(home.database)
        self._home, self._worker = home, worker

    async def turn(self, free: int, *, fit: bool = True) -> list[UUID]:
        """Look, and claim what was found, or none of it."""
        rows, more = await self.polling.look(["default"], [ECHO, NOOP], free)
        claimed = []
        if rows and fit:
            async with self._home.database.connection() as tx:
                claimed = await queue.claim(
                    tx, [row.id for row in rows], worker=self._worker, secret=SECRET, claim=uuid4(), types=[ECHO, NOOP]
                )
        self.polling.tried(rows, len(claimed), more=more)
        return [task.id for task in claimed] if fit else [row.id for row in rows]


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock, "monotonic", made)
    return made


@pytest.fixture
async def lane(home: House, time: Time) -> Lane:
    face = WorkerFace(
        id=uuid4(),
        secret=SECRET,
        name="w",
        queues=("default",),
        sync_types=(ECHO, NOOP),
        async_types=(),
        sync_slots=9,
        async_slots=0,
    )
    async with home.database.connection() as tx:
        await queue.register_worker(tx, face)
    return Lane(home, face.id)


async def test_a_backlog_is_taken_in_its_order_from_poll_to_poll(home: House, lane: Lane) -> None:
    ids: dict[Any, list[UUID]] = {}
    for priority in (LOW, HIGH, NORMAL):
        ids[priority] = await home.submit("noop", 10, _priority=priority)
    taken = [task for _ in range(8) for task in await lane.turn(4)]
    assert taken == [*ids[HIGH], *ids[NORMAL], *ids[LOW]]


async def test_a_more_urgent_task_is_next_whatever_the_poll_has_come_to(home: House, lane: Lane) -> None:
    await home.submit("noop", 20)
    await lane.turn(4)
    [urgent] = await home.submit("echo", 1, _priority=HIGH, value=1)
    assert (await lane.turn(4))[0] == urgent


async def test_what_was_passed_is_not_looked_at_again_until_all_is(home: House, lane: Lane, time: Time) -> None:
    first = await home.submit("noop", 12)
    assert await lane.turn(4) == first[:4]
    assert await lane.turn(4, fit=False) == first[4:8]  # as a row is that commits behind the place the poll has come to
    assert await lane.turn(2) == first[8:10]
    time.at += 60
    assert await lane.turn(4) == first[4:8]


async def test_the_end_of_the_backlog_is_followed_by_a_look_at_all(home: House, lane: Lane) -> None:
    ids = await home.submit("noop", 9)
    assert await lane.turn(4, fit=False) == ids[:4]
    assert await lane.turn(8) == ids[4:]
    assert await lane.turn(8) == ids[:4]


async def test_a_slow_look_at_all_is_followed_by_a_long_pause(
    home: House, lane: Lane, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await home.submit("noop", 20)
    poll = queue.poll

    async def slowly(*args: Any, **more: Any) -> Any:
        time.at += 1.0
        return await poll(*args, **more)

    with monkeypatch.context() as slow:
        slow.setattr(queue, "poll", slowly)
        assert await lane.turn(2, fit=False) == ids[:2]
    for at in (2, 4, 6):
        time.at += 12  # 36 seconds together, and a look of one second is worth forty
        assert await lane.turn(2) == ids[at : at + 2]
    time.at += 6
    assert await lane.turn(2) == ids[:2]


async def test_what_a_claim_refused_is_passed_over_for_a_while(home: House, lane: Lane, time: Time) -> None:
    ids = await home.submit("noop", 2)
    lane.polling.pass_over(ids[0])
    assert await lane.turn(2) == ids[1:]
    assert await lane.turn(2) == []
    time.at += 6
    assert await lane.turn(2) == ids[:1]
