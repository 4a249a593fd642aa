"""Endings into PostgreSQL: what ends while one commit is in flight is the next commit.

An ending is held until PostgreSQL has recorded or refused it, however long it is away. What does not come back from
a finish is fenced: somebody else owns the task by now, so the outcome is dropped, counted and told.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from core import queue_manager as queue
from core.domain.lifecycle import ENDED
from core.errors import Unavailable
from core.pool import heed_cancel
from services.worker import crowd
from services.worker.charging import rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.domain.task import Ending, Moved
    from core.pool import Database
    from services.worker.holding import Holding

MOST_ROWS: Final = 2000
MOST_BYTES: Final = 8 * 1024 * 1024
MOST_HELD: Final = 10_000  # beyond that nothing new is claimed
_FACTS: Final = attrgetter("queue", "type", "status")
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
log = telemetry.get_logger("worker.finishing")


class Finisher:
    """The one writer of endings."""

    def __init__(
        self, database: Database, holding: Holding, hint: Callable[[list[Moved]], Awaitable[None]] | None = None
    ) -> None:
        """`hint` tells Redis what was moved; it never raises."""
        self._database = database
        self._holding = holding
        self.hint = hint
        self._held: deque[Ending] = deque()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last = 0  # how many the last commit took
        self._hints: set[asyncio.Task[None]] = set()
        self.away = False  # the last attempt did not reach PostgreSQL
        self.on_back: Callable[[], None] = lambda: None  # PostgreSQL answers again

    @property
    def full(self) -> bool:
        """Whether so much is held that nothing new should be begun."""
        return len(self._held) > MOST_HELD

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be recorded."""
        return self._idle.is_set()

    def put(self, endings: list[Ending]) -> None:
        """Take endings to be recorded."""
        self._held.extend(endings)
        self._work.set()
        self._idle.clear()

    async def flushed(self) -> None:
        """Wait until nothing is held."""
        await self._idle.wait()

    async def serve(self) -> None:
        """Record what comes, for ever."""
        while True:
            heed_cancel()
            await self._work.wait()
            while self._held:
                await crowd.gather(self._last, self._more, self._work)
                batch = self._take()
                self._last = len(batch)
                await self._finish(batch)
            self._work.clear()
            self._idle.set()

    def _more(self) -> bool:
        """Whether more endings may come, and there is room for them in one commit."""
        return bool(self._holding.jobs) and len(self._held) < MOST_ROWS

    def _take(self) -> list[Ending]:
        batch: list[Ending] = []
        size = 0
        while self._held and len(batch) < MOST_ROWS:
            size += _bytes(self._held[0])
            if batch and size > MOST_BYTES:
                break
            batch.append(self._held.popleft())
        return batch

    async def _finish(self, batch: list[Ending], *, doubtful: bool = False) -> None:
        """Record one batch; a batch with an ending that PostgreSQL cannot store is split until that one is alone.

        `doubtful` says that a part of it may be recorded already: what does not come back is then looked up.
        """
        try:
            await self._record(batch, doubtful=doubtful)
        except Exception as refused:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._finish(batch[:half], doubtful=True)
                await self._finish(batch[half:], doubtful=True)
            elif batch[0] == rejected(batch[0]):
                log.exception("an ending cannot be recorded; its task is rescued when this worker ends")
                self._holding.recorded(batch)
            else:
                log.warning("an ending was refused; its task fails", task_id=str(batch[0].id), error=str(refused)[:500])
                await self._finish([rejected(batch[0])], doubtful=doubtful)

    async def _record(self, batch: list[Ending], *, doubtful: bool) -> None:
        pause = _FIRST_PAUSE
        moved: list[Moved] = []
        fenced: list[Ending] | None = None
        while fenced is None:
            heed_cancel()
            try:
                moved += await self._send(batch)
                fenced = await self._fenced(batch, moved, doubtful=doubtful)
            except Unavailable as away:
                # Sending again is harmless, because the fence lets an ending through once. An answer may have been
                # lost, or only a later statement have failed: what does not come back is looked up first.
                doubtful = True
                if not self.away:
                    log.warning("endings are held until PostgreSQL answers", held=len(self._held), error=str(away))
                self.away = True
                await clock.system.sleep(pause * (0.5 + clock.rand()))
                pause = min(pause * 2, _LONGEST_PAUSE)
        self._holding.recorded(batch)
        if self.away:
            self.away = False
            self.on_back()
        self._tell(batch, moved, fenced)

    async def _send(self, batch: list[Ending]) -> list[Moved]:
        if any(ending.logs for ending in batch):  # a second statement, so a transaction around both
            async with self._database.begin() as tx:
                return await queue.finish(tx, batch)
        async with self._database.connection() as tx:
            return await queue.finish(tx, batch)

    async def _fenced(self, batch: list[Ending], moved: list[Moved], *, doubtful: bool) -> list[Ending]:
        """Return what was refused; after an unknown commit, what is recorded already was not."""
        if len(moved) == len(batch):
            return []
        came = {(row.id, row.attempt) for row in moved}
        missing = [ending for ending in batch if (ending.id, ending.attempt) not in came]
        async with self._database.connection() as tx:
            if doubtful:
                known = await queue.ended_under(tx, missing)
                missing = [ending for ending in missing if (ending.id, ending.attempt, ending.claim) not in known]
            if missing:
                await queue.record_fenced(tx, missing)
        return missing

    def _tell(self, batch: list[Ending], moved: list[Moved], fenced: list[Ending]) -> None:
        metrics = telemetry.metrics()
        if fenced:
            metrics.fenced_writes_total.labels("finish").inc(len(fenced))
            log.warning("outcomes were refused: their tasks have moved on", tasks=[str(one.id) for one in fenced][:10])
        for reason, number in Counter(ending.reason for ending in batch).items():
            metrics.attempts_total.labels(reason.value).inc(number)
        for (name, kind, status), number in Counter(map(_FACTS, moved)).items():
            if status in ENDED:
                metrics.tasks_total.labels(name, kind, status.value).inc(number)
        back = [row for row in moved if row.gated or row.status not in ENDED]
        if back and self.hint is not None:  # beside the next commit, not before it
            task = asyncio.ensure_future(self.hint(back))
            self._hints.add(task)
            task.add_done_callback(self._hints.discard)


def _bytes(ending: Ending) -> int:
    return len(ending.result or "") + len(ending.error or "") + len(ending.logs or "") + 200
