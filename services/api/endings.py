"""Waiting for tasks to end: one poller for all who wait, so that no waiter holds a connection."""

import asyncio
from collections import defaultdict
from typing import Final
from uuid import UUID

from core import search
from core.clock import Clock, system
from core.domain.lifecycle import ENDED
from core.errors import Unavailable
from core.pool import Database

POLL_SECONDS: Final = 0.05
DOWN_SECONDS: Final = 0.5
MOST_WAITERS: Final = 10_000


class Endings:
    """Looks up all waited-for tasks in one query, while there are any."""

    def __init__(self, db: Database, clock: Clock = system) -> None:
        """Read from `db`."""
        self._db = db
        self._clock = clock
        self._waiting: defaultdict[UUID, set[asyncio.Future[None]]] = defaultdict(set)
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    async def wait(self, task: UUID, seconds: float) -> None:
        """Come back when `task` has ended, or after `seconds`, or when this process goes down."""
        if self._closed or seconds <= 0 or len(self._waiting) >= MOST_WAITERS:
            return
        ended = asyncio.get_running_loop().create_future()
        self._waiting[task].add(ended)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            await asyncio.wait_for(ended, seconds)
        except TimeoutError:
            pass
        finally:
            self._forget(task, ended)

    def release(self) -> None:
        """Send everybody home with what is known: this process is to stop."""
        self._closed = True
        self._wake(list(self._waiting))

    async def close(self) -> None:
        """Stop polling."""
        self.release()
        if self._poller is not None:
            await asyncio.wait([self._poller])

    async def _poll(self) -> None:
        try:
            while self._waiting:
                await self._clock.sleep(await self._look())
        finally:
            self._poller = None

    async def _look(self) -> float:
        """Wake whose task has ended; return how long to rest before the next look."""
        asked = list(self._waiting)
        if not asked:
            return 0.0
        try:
            async with self._db.connection() as tx:
                found = await search.statuses(tx, asked)
        except Unavailable:
            return DOWN_SECONDS
        # Purged meanwhile counts as ended: nobody will ever see it change.
        self._wake([task for task in asked if found.get(task) in ENDED or task not in found])
        return POLL_SECONDS

    def _wake(self, tasks: list[UUID]) -> None:
        for task in tasks:
            for ended in self._waiting.get(task, ()):
                if not ended.done():
                    ended.set_result(None)

    def _forget(self, task: UUID, ended: asyncio.Future[None]) -> None:
        waiters = self._waiting[task]
        waiters.discard(ended)
        if not waiters:
            del self._waiting[task]
