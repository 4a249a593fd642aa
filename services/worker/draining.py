"""Leaving: nothing new, what runs may end, what does not is asked to stop, the rest is given back uncharged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from core import queue_manager as queue
from core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from core.pool import Database
    from services.worker.finishing import Finisher
    from services.worker.holding import Holding
    from services.worker.supervisor import Supervisor

_STOP_SECONDS: Final = 3.0  # what handlers have to end after they were asked to
_KILL_SECONDS: Final = 2.0
_RECORD_SECONDS: Final = 10.0  # what PostgreSQL has to take the last endings
_LOOK_SECONDS: Final = 0.05
log = telemetry.get_logger("worker.draining")


class Drain:
    """The way out of a worker. `hurry` skips the patience."""

    def __init__(self, database: Database, holding: Holding, supervisor: Supervisor, finisher: Finisher) -> None:
        self._database = database
        self._holding = holding
        self._supervisor = supervisor
        self._finisher = finisher
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Give everything back now."""
        self._hurry.set()

    async def cordon(self, worker: UUID, secret: UUID) -> None:
        """Say that this worker takes nothing more; when PostgreSQL is away it does so all the same."""
        try:
            async with self._database.connection() as tx:
                await queue.drain_worker(tx, worker, secret=secret)
        except Unavailable as away:
            log.warning("PostgreSQL does not know of this drain yet", error=str(away))

    async def empty(self, seconds: float) -> None:
        """Let what runs end for so long, then ask, then release; return when PostgreSQL knows of it all."""
        log.info("draining", running=len(self._holding.jobs), seconds=seconds)
        await self._until(lambda: not self._holding.jobs and not self._holding.claims, seconds)
        if self._holding.jobs:
            log.info("asking what still runs to stop", running=len(self._holding.jobs))
            jobs = list(self._holding.jobs.values())
            self._supervisor.cancel(jobs, asked="drain")
            self._supervisor.interrupt(jobs)
            await self._until(lambda: not self._holding.jobs, _STOP_SECONDS)
        if self._holding.jobs:
            await self._release()
        try:
            async with asyncio.timeout(_RECORD_SECONDS):
                await self._finisher.flushed()
        except TimeoutError:
            log.warning(
                "PostgreSQL did not take the last endings: these tasks are rescued", held=len(self._holding.ending)
            )

    async def _release(self) -> None:
        """Kill what still runs, then give it back: in this order, so that nothing runs twice at a time."""
        log.info("giving the rest back", tasks=[str(job.task.id) for job in self._holding.jobs.values()][:10])
        for child in self._supervisor.children:
            if child.jobs:
                child.kill("drain")
        self._hurry.clear()
        await self._until(lambda: not any(job.child for job in self._holding.jobs.values()), _KILL_SECONDS)
        self._supervisor.release(self._holding.jobs.values())

    async def retire(self, worker: UUID, secret: UUID) -> None:
        """Say good-bye; without it the leader finds out by the beat that stands still."""
        try:
            async with self._database.connection() as tx:
                await queue.retire_worker(tx, worker, secret=secret)
        except Unavailable as away:
            log.warning("PostgreSQL could not be told that this worker has gone", error=str(away))

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        end = clock.monotonic() + seconds
        while not true() and clock.monotonic() < end and not self._hurry.is_set():
            await clock.system.sleep(_LOOK_SECONDS)
