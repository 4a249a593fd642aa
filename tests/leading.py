"""What the tests of the leader share: a clock of their own, candidates, workers that only exist as rows, tasks."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from core import clock as clocks
from core import queue_manager as queue
from core.database import Database
from core.domain.ordering import Lane, PriorityType
from core.domain.task import Submission, WorkerFace
from core.leadership import Leadership, PostgresLease, RedisLock, Term
from services.scheduler import duties
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from core.references import Reader, References
    from services.scheduler.context import Context


class OwnClock:
    """A clock that moves when it is told to; sleepers wake when their time has come."""

    def __init__(self) -> None:
        self.at = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at

    def rand(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        due = asyncio.Event()
        self._sleepers.append((self.at + seconds, due))
        self.advance(0)
        await due.wait()

    def advance(self, seconds: float) -> None:
        self.at += seconds
        for until, due in self._sleepers:
            if until <= self.at:
                due.set()
        self._sleepers = [(until, due) for until, due in self._sleepers if until > self.at]


class Candidate:
    """A process that may lead."""

    def __init__(self, url: str, db: Database, refs: References, clock: Any) -> None:
        self.holder = uuid4()
        self.election = PostgresLease(db, self.holder, clock=clock)
        self.lock = RedisLock(refs.high, self.holder)
        self.leadership = Leadership(url, self.holder, db=db, election=self.election, lock=self.lock, clock=clock)


@asynccontextmanager
async def candidate(url: str, refs: References, clock: Any) -> AsyncIterator[Candidate]:
    async with Database(url, name="tf-candidate", size=2, hot=False, statement_timeout="3s") as db:
        yield Candidate(url, db, refs, clock)


@asynccontextmanager
async def leading(url: str, refs: References, clock: Any, *, lease: float = 15.0) -> AsyncIterator[Context]:
    """A leader whose ticks the test calls by hand, at the test's time; its election goes by real time."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(candidate(url, refs, clocks.system))
        term, _ = await stack.enter_async_context(one.leadership.term())
        yield duties.context(term, refs, clock=clock, lease=lease)


@asynccontextmanager
async def term_of(url: str, epoch: int) -> AsyncIterator[Term]:
    async with Database(url, name=f"tf-leader/{epoch}", size=2) as db:
        yield Term(epoch, db)


class Hand:
    """A user, and workers that are rows only."""

    def __init__(self, db: Database, refs: References) -> None:
        self.db, self.refs = db, refs
        self.owner = 0

    async def worker(
        self,
        types: Sequence[str] = ("a:b",),
        queues: Sequence[str] = ("default",),
        slots: int = 4,
        worker: UUID | None = None,
    ) -> UUID:
        face = WorkerFace(
            id=worker or uuid4(), secret=SECRET,
            name="w", queues=tuple(queues), sync_types=tuple(types), async_types=(),
            sync_slots=slots, async_slots=0,
        )  # fmt: skip
        async with self.db.begin() as tx:
            assert await queue.register_worker(tx, face)
        return face.id

    async def beat(self, worker: UUID) -> None:
        async with self.db.begin() as tx:
            await queue.beat(tx, worker, secret=SECRET, free_sync=1, free_async=0)

    async def submit(self, count: int = 1, *, kind: str = "a:b", wakes: bool = True, **more: Any) -> list[UUID]:
        """Submit as an API does that had no credit: it wakes the leader and names the queue."""
        asked = [Submission(id=uuid4(), owner_id=1, type=kind, **more) for _ in range(count)]
        async with self.db.begin() as tx:
            await queue.submit(tx, asked)
        if wakes and not self.refs.off:
            await self.refs.low.client.lpush("tf:wake", *{one.queue for one in asked})
        return [one.id for one in asked]

    async def claim(self, ids: Sequence[UUID], worker: UUID, types: Sequence[str] = ("a:b",)) -> Any:
        async with self.db.begin() as tx:
            return await queue.claim(tx, ids, worker=worker, secret=SECRET, claim=uuid4(), types=types)

    async def statuses(self, ids: Sequence[UUID]) -> list[str]:
        async with self.db.connection() as tx:
            found = await tx.fetch("select id, status::text from tasks where id = any($1)", list(ids))
        by_id = {row["id"]: row["status"] for row in found}
        return [by_id[one] for one in ids]

    async def run(self, text: str, *values: Any) -> Any:
        async with self.db.connection() as tx:
            return await tx.fetch(text, *values)

    async def change_ended(self, text: str) -> None:
        """Run a statement of the tables' owner that the trigger on ended tasks would refuse."""
        async with self.db.begin() as tx:
            await tx.execute(f"set local taskflow.change_ended_tasks = on; {text}")

    def reader(self, worker: UUID, types: Sequence[str] = ("a:b",), queues: Sequence[str] = ("default",)) -> Reader:
        return self.refs.reader(worker=worker, lane=Lane.SYNC, queues=queues, types=types)


HIGH, NORMAL, LOW = PriorityType.HIGH, PriorityType.NORMAL, PriorityType.LOW
