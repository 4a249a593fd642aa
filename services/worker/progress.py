"""The progress of running tasks, into PostgreSQL after each heartbeat. It can neither delay nor fail a heartbeat.

Progress is a hint for people: what cannot be written is written with the next one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry
from core.errors import Unavailable
from core.pool import heed_cancel

if TYPE_CHECKING:
    from core.pool import Database
    from services.worker.holding import Holding, Job

log = telemetry.get_logger("worker.progress")


class ProgressWriter:
    """Writes what handlers have reported since the last time."""

    def __init__(self, database: Database, holding: Holding) -> None:
        self._database = database
        self._holding = holding
        self._due = asyncio.Event()

    def trigger(self) -> None:
        """Ask for the next write; it takes place in `serve`."""
        self._due.set()

    async def serve(self) -> None:
        """Write after each `trigger`, for ever."""
        while True:
            heed_cancel()
            await self._due.wait()
            self._due.clear()
            if jobs := [job for job in self._holding.jobs.values() if job.progress is not None]:
                await self._write(jobs)

    async def _write(self, jobs: list[Job]) -> None:
        reported = [(job, job.progress) for job in jobs if job.progress is not None]
        for job in jobs:
            job.progress = None
        try:
            async with self._database.connection() as tx:
                await queue.record_progress(tx, [_row(job, *progress) for job, progress in reported])
        except Unavailable:
            for job, progress in reported:
                job.progress = job.progress or progress  # unless the handler has reported again meanwhile
        except Exception as refused:  # noqa: BLE001 - a note that PostgreSQL cannot store costs this report only
            log.warning("progress was refused", error=str(refused)[:300])


def _row(job: Job, fraction: float, note: str) -> queue.Progress:
    task = job.task
    return queue.Progress(id=task.id, attempt=task.attempt, claim=task.claim, fraction=fraction, note=note)
