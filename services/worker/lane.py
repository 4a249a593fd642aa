"""Intake: a lane takes as many tasks as it has free slots, and never more.

References from Redis come first, in their order; PostgreSQL is polled when Redis or the leader is away, and now and
then anyway, because a reference is only a hint. Where the two lanes meet (a task wants the whole worker) is solo.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from core import queue_manager as queue
from core.errors import Unavailable
from core.pool import heed_cancel
from services.worker import crowd
from services.worker.polling import LONGEST, Polling

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from core.domain.ordering import Lane
    from core.domain.task import Claimed
    from core.pool import Database
    from core.reading import Reader, Ref
    from services.worker.claiming import Claimer
    from services.worker.solo import Solo

_SAFETY_POLL: Final = 5.0  # with Redis and a leader there, and nothing coming from them
_FULL_SECONDS: Final = 0.1  # full for so long, the leader is told that nothing is wanted
_MOST_ROWS: Final = 2000  # of a claim: some tens of milliseconds of one statement
_LOOK_AGAIN: Final = 1.0  # shut or full: what opens the lane again need not have said so
log = telemetry.get_logger("worker.lane")


@dataclass(slots=True, kw_only=True)
class Sources:
    """Where a lane finds work: the queues and types it reads, and a reader of references when there is Redis."""

    queues: tuple[str, ...]
    types: tuple[str, ...]
    reader: Reader | None = None


class Intake:
    """One lane's loop: find, claim, hand over, again."""

    def __init__(
        self,
        lane: Lane,
        database: Database,
        claimer: Claimer,
        solo: Solo,
        *,
        free: Callable[[], int],
        places: Callable[[], int],
        shut: Callable[[], bool],
        run: Callable[[list[Claimed]], None],
    ) -> None:
        """`free` says how many tasks may be claimed now (0: intake is shut), `places` how many ever; `run` takes them.

        `shut` says that others shall run what this lane was given references of: they go back.
        """
        self._lane = lane
        self._claimer = claimer
        self._solo = solo
        self._free = free
        self._places = places
        self._shut = shut
        self._run = run
        self.sources: Sources | None = None
        self.room = asyncio.Event()
        self._kept: deque[Ref] = deque()  # references beyond the slots that were free
        self._again: set[UUID] = set()  # waited once already
        self._polling = Polling(database)
        self._recent: deque[tuple[float, int]] = deque()
        self._last = 0  # how many the last claim brought

    async def serve(self) -> None:
        """Take work, for ever."""
        while True:
            heed_cancel()
            if (sources := self.sources) is None or not sources.types:
                await self._wait(_LOOK_AGAIN)
                continue
            await crowd.gather(self._last, lambda: self._free() < self._places(), self.room)
            if (free := min(self._free(), _MOST_ROWS)) <= 0:
                await self._full(sources)
            else:
                try:
                    await self._turn(sources, free)
                except Unavailable:  # the claim's or the poll's; what was read is hinted again by the leader
                    await self._wait(LONGEST * (0.5 + clock.rand()))
                except Exception:
                    # A loop's edge: what was claimed and not handed over is found by the inventory.
                    log.exception("a turn of the intake failed; the next one follows", lane=self._lane.value)
                    await self._wait(LONGEST)

    def reopen(self) -> None:
        """Look into PostgreSQL at once: while the lane was shut nobody told it what waits there."""
        self._polling.hurry()
        self.room.set()

    async def leave(self) -> None:
        """Give the references back and stop reading: before the worker goes."""
        sources, self.sources = self.sources, None
        if sources is not None and sources.reader is not None:
            await sources.reader.give_back(self._kept)
            await sources.reader.aclose()

    async def _turn(self, sources: Sources, free: int) -> None:
        refs = await self._read(sources, free)
        if refs:
            claimed = await self._claim([ref.id for ref in refs], sources)
            self._settle(refs, {task.id for task in claimed})
            if claimed:
                return
        if self._due(sources):
            await self._poll(sources, self._free())
        elif not refs and (sources.reader is None or sources.reader.degraded):
            await self._wait(self._polling.pause)

    # ── references ──

    async def _read(self, sources: Sources, free: int) -> list[Ref]:
        if sources.reader is None:
            return []
        if len(self._kept) < free:
            block = 1000 if not self._kept and not self._due(sources) else 0
            with contextlib.suppress(Unavailable):
                self._kept.extend(
                    await sources.reader.read(count=free - len(self._kept), want=self._want(free), block_ms=block)
                )
        free = min(free, max(self._free(), 0))  # others may have taken slots while this waited
        return [self._kept.popleft() for _ in range(min(free, len(self._kept)))]

    def _settle(self, refs: list[Ref], claimed: set[UUID]) -> None:
        """Keep the references that are worth one more try."""
        if len(claimed) < len(refs):
            self._kept.extend(ref for ref in refs if ref.id not in claimed and ref.id in self._again)
        if claimed:
            now = clock.monotonic()
            self._recent.append((now, len(claimed)))

    def _want(self, free: int) -> int:
        """What the lane would take now: its free slots, or what it took in the last moment when that is more."""
        since = clock.monotonic() - _FULL_SECONDS
        while self._recent and self._recent[0][0] < since:
            self._recent.popleft()
        return max(free, sum(number for _, number in self._recent))

    async def _full(self, sources: Sources) -> None:
        """Wait for a slot; full for a while, tell the leader."""
        if await self._wait(_FULL_SECONDS) or sources.reader is None:
            return
        if self._free() <= 0:
            await sources.reader.report(0)
            if self._shut() and self._kept:
                kept = list(self._kept)
                self._kept.clear()
                await sources.reader.give_back(kept)
            await self._wait(_LOOK_AGAIN)

    # ── polling ──

    def _due(self, sources: Sources) -> bool:
        """Whether PostgreSQL is to be asked for work now."""
        if sources.reader is None:
            return self._polling.due(self._polling.pause)
        fed = sources.reader.led and not sources.reader.degraded
        return self._polling.due(_SAFETY_POLL if fed else LONGEST)

    async def _poll(self, sources: Sources, free: int) -> None:
        if free <= 0:
            return
        found, more = await self._polling.look(sources.queues, sources.types, free)
        tried = found[: self._free()]
        claimed = await self._claim([row.id for row in tried], sources) if tried else []
        self._polling.tried(tried, len(claimed), more=more)

    # ── claiming ──

    async def _claim(self, ids: list[UUID], sources: Sources) -> list[Claimed]:
        claimed = await self._claimer.claim(ids, sources.types)
        self._last = len(claimed)
        if claimed:
            self._run(claimed)
        if len(claimed) < len(ids):
            got = {task.id for task in claimed}
            await self._explain([one for one in ids if one not in got], sources)
        else:
            self._again.clear()
        return claimed

    async def _explain(self, ids: list[UUID], sources: Sources) -> None:
        """Tell what is gone from what was only locked, which gets one more try; note who wants the whole worker."""
        again: set[UUID] = set()
        for task, why in (await self._claimer.unclaimed(ids, sources.types)).items():
            match why:
                case queue.Why.WAITING if task not in self._again:
                    again.add(task)
                case queue.Why.SOLO:
                    self._solo.wish(task, sources.types)
                    self._polling.pass_over(task)
                case queue.Why.REFUSED:
                    self._polling.pass_over(task)
                case queue.Why.WAITING | queue.Why.GONE:
                    pass
        self._again = again

    async def _wait(self, seconds: float) -> bool:
        """Wait until there may be room, at most so long; True when there may."""
        self.room.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.room.wait()
        except TimeoutError:
            return False
        return True
