from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from core import queue_manager as queue
from core.database import Database
from core.references import References
from core.waking import Waker, listen
from services.api.parts import open_parts
from services.scheduler.ticks import due
from tests.leading import Hand, OwnClock, leading
from tests.lookout import happens
from tests.system.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Ear:
    """Everything that was heard so far; "" is a new connection."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def connected(self, times: int) -> bool:
        return self.heard.count("") >= times

    async def has(self, *names: str) -> bool:
        return set(names) <= set(self.heard)


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Ear]:
    ear = Ear()

    async def run() -> None:
        async with aclosing(listen(url)) as said:
            async for one in said:
                ear.heard.append(one)

    task = asyncio.create_task(run())
    try:
        await happens(lambda: ear.connected(1))
        yield ear
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def db(environment: dict[str, str]) -> AsyncIterator[Database]:
    async with Database(environment["DATABASE_URL"], name="t", size=4) as opened:
        yield opened


@pytest.fixture
async def refs(environment: dict[str, str]) -> AsyncIterator[References]:
    async with References(seconds=2.0) as open_refs:
        yield open_refs


async def marked(db: Database, ear: Ear) -> None:
    """Everything that was said before now has been heard."""
    async with db.begin() as tx:
        await queue.notify_wake(tx, ["mark"])
    await happens(lambda: ear.has("mark"))


async def test_only_queues_without_a_worker_are_named_once_a_second(
    environment: dict[str, str], db: Database, refs: References
) -> None:
    clock, hand = OwnClock(), Hand(db, refs)
    worker = await hand.worker(queues=("served",))
    waker = Waker(db, clock)
    async with listening(environment["DATABASE_URL"]) as ear:
        await waker.tell(["served", "lonely"])
        await waker.tell(["lonely"])
        await marked(db, ear)
        assert ear.heard == ["", "lonely", "mark"]
        ear.heard.clear()
        clock.advance(1.1)
        await waker.tell(["served", "lonely"])
        await marked(db, ear)
        assert ear.heard == ["lonely", "mark"]
        ear.heard.clear()
        async with db.begin() as tx:
            await queue.cordon(tx, [worker])
        clock.advance(2.1)
        await waker.tell(["served"])
        await marked(db, ear)
        assert ear.heard == ["served", "mark"]


async def test_a_submit_over_the_api_wakes(environment: dict[str, str], db: Database, refs: References) -> None:
    await Hand(db, refs).worker(queues=("served",))
    async with listening(environment["DATABASE_URL"]) as ear, open_parts() as parts:
        for name in ("served", "lonely", "lonely"):
            await parts.submitter.submit([submission(queue=name)])
        await happens(lambda: ear.has("lonely"))
        await parts.submitter.close()
        await marked(db, ear)
        assert ear.heard == ["", "lonely", "mark"]


async def test_a_wake_that_fails_fails_no_submit(environment: dict[str, str], refs: References) -> None:
    with Proxy(environment["DATABASE_URL"]) as proxy:
        async with Database(proxy.url, name="t", size=1) as broken:
            waker = Waker(broken)
            proxy.refusing = True
            waker.submitted([])
            waker.add(["lonely"])
            await waker.close()
            proxy.refusing = False
            async with listening(environment["DATABASE_URL"]) as ear:
                waker.add(["lonely"])
                await waker.close()
                await happens(lambda: ear.has("lonely"))


async def test_a_delay_that_is_over_wakes(environment: dict[str, str], db: Database, refs: References) -> None:
    url = environment["DATABASE_URL"]
    hand = Hand(db, refs)
    await hand.submit(queue="later", wakes=False)
    await hand.run("update tasks set status = 'PENDING', scheduled_at = now() - interval '1 second'")
    async with listening(url) as ear, leading(url, refs, OwnClock()) as ctx:
        assert await due.tick(ctx) == 1
        await happens(lambda: ear.has("later"))


async def test_the_ear_comes_back_by_itself(environment: dict[str, str], db: Database) -> None:
    with Proxy(environment["DATABASE_URL"]) as proxy:
        async with listening(proxy.url) as ear:
            proxy.refusing = True
            proxy.cut()
            proxy.refusing = False
            await happens(lambda: ear.connected(2))
            await marked(db, ear)


def submission(**more: Any) -> Any:
    from uuid import uuid4

    from core.domain.task import Submission

    return Submission(id=uuid4(), owner_id=1, type="a:b", **more)
