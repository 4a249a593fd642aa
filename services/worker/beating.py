"""Signs of life, and what their answers ask for: cancels, a cordon, a drain, or that this worker is dead to the others.

On a connection of its own, so that no slow statement delays a beat; a nudge that comes over it asks for one at once.
Every third beat compares what PostgreSQL says
that this worker runs with what it knows itself: a task that it has forgotten is given back, a handler that is not its
any more is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from core import clock, telemetry
from core import queue_manager as queue
from core.domain.lifecycle import Cause
from core.domain.ordering import Lane
from core.domain.task import LEASE_BEATS, Asked, Ending, Held, Reason
from core.errors import CommitUnknown, Unavailable
from core.nudging import hear
from core.pool import heed_cancel
from core.sessions import heed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.pool import Database
    from services.worker.cordon import Cordon
    from services.worker.finishing import Finisher
    from services.worker.holding import Holding, Job, Key
    from services.worker.identity import Identity
    from services.worker.supervisor import Supervisor

_JITTER: Final = 0.2
_AGAIN_SECONDS: Final = 0.25  # after a beat that did not get through
_TELL_SECONDS: Final = 1.0
_COMPARE_SHARE: Final = 0.02  # under an open snapshot an inventory walks over all that was claimed since
log = telemetry.get_logger("worker.beating")


class Beater:
    """The worker's pulse."""

    def __init__(  # noqa: PLR0917 - it serves all the parts, and each is named where it is made
        self,
        database: Database,
        identity: Identity,
        holding: Holding,
        supervisor: Supervisor,
        finisher: Finisher,
        cordon: Cordon,
        *,
        interval: float,
        free: Callable[[Lane], int],
        reborn: Callable[[], Awaitable[None]],
        sized: Callable[[Any], Awaitable[None]],
    ) -> None:
        """`free` says how many tasks of a lane others may hint to this worker.

        `reborn` is awaited when this worker was declared dead: it takes a new id there. `sized` is given the
        connection with each inventory, to look whether another number of children is wanted.
        """
        self._database = database
        self._identity = identity
        self._holding = holding
        self._supervisor = supervisor
        self._finisher = finisher
        self._cordon = cordon
        self._interval = interval
        self._free = free
        self._reborn = reborn
        self._sized = sized
        self._nudged = asyncio.Event()
        self._connection: Any = None
        self._compare_due = 0.0
        self.on_drain: Callable[[], None] = lambda: None
        self.on_beat: Callable[[], None] = lambda: None  # PostgreSQL has answered a heartbeat

    async def serve(self) -> None:
        """Beat, for ever."""
        beats = 0
        while True:
            heed_cancel()
            self._nudged.clear()
            try:
                alive = await self._beat(inventory=beats % LEASE_BEATS == LEASE_BEATS - 1)
            except Exception as error:  # noqa: BLE001 - a loop's edge: the next beat takes a new connection
                heed(error)
                await self._hang_up()
                if not isinstance(error, Unavailable):
                    log.warning("a beat did not get through; trying again", error=repr(error)[:300])
                await clock.system.sleep(_AGAIN_SECONDS * (0.5 + clock.rand()))
                continue
            if not alive:
                log.error("this worker was declared dead; it takes a new id", id=str(self._identity.id))
                await self._reborn()
                await self._hang_up()  # the nudges of this connection are for the old id
                beats = 0
                if self._identity.registered:
                    continue
            beats += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval * (1 - _JITTER + 2 * _JITTER * clock.rand())):
                    await self._nudged.wait()

    async def leave(self) -> None:
        """Close the connection."""
        await self._hang_up()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close(timeout=1.0)

    async def _beat(self, *, inventory: bool) -> bool:
        worker, secret = self._identity.id, self._identity.secret
        if self._connection is None:
            self._connection = await self._database.own_connection()
            await hear(self._connection, worker, self._nudged.set)
        async with asyncio.timeout(max(self._interval, 1.0) * 2):
            asked = await queue.beat(
                self._connection,
                worker,
                secret=secret,
                free_sync=self._free(Lane.SYNC),
                free_async=self._free(Lane.ASYNC),
                held_endings=self._finisher.look(),
            )
        if worker != self._identity.id or not asked.alive:
            return worker != self._identity.id
        self._identity.beaten()
        self.on_beat()
        self._obey(asked)
        self._measure()
        if inventory:
            await self._compare_in_turn()
            async with asyncio.timeout(max(self._interval, 1.0) * 2):
                await self._sized(self._connection)
        return True

    def _measure(self) -> None:
        """Tell the metrics how many slots there are."""
        slots = telemetry.metrics().worker_slots
        for lane, busy in self._holding.lanes.items():
            slots.labels(f"{lane.value}_busy").set(busy)
            slots.labels(f"{lane.value}_free").set(self._free(lane))

    def _obey(self, asked: Asked) -> None:
        keys = ((task.bytes, attempt) for task, attempt in asked.cancelling)
        self._supervisor.cancel([self._holding.jobs[key] for key in keys if key in self._holding.jobs], asked="user")
        self._cordon.obey(cordoned=asked.cordoned)
        if asked.draining:
            self.on_drain()

    async def _compare_in_turn(self) -> None:
        """Compare, unless the last time took so long that it is not yet time again."""
        began = clock.monotonic()
        if began < self._compare_due:
            return
        try:
            await self._compare()
        finally:
            now = clock.monotonic()
            self._compare_due = now + (now - began) / _COMPARE_SHARE

    async def _compare(self) -> None:
        """Inventory. What is being claimed or ended at either moment is left alone: its answer is under way."""
        before, claims = self._holding.keys(), set(self._holding.claims)
        jobs = dict(self._holding.jobs)
        async with asyncio.timeout(max(self._interval, 1.0) * 2):
            rows = await queue.inventory(self._connection, self._identity.id, secret=self._identity.secret)
        known, claims = before | self._holding.keys(), claims | self._holding.claims
        forgotten = [row for row in rows if (row.id.bytes, row.attempt) not in known and row.claim not in claims]
        there = {(row.id.bytes, row.attempt) for row in rows}
        lost = [job for key, job in jobs.items() if key not in there and key in self._holding.jobs]
        if forgotten:
            log.warning("PostgreSQL says that this worker runs what it does not know", tasks=_names(forgotten))
            self._finisher.put([_give_back(row) for row in forgotten])
        if lost:
            log.warning("tasks are not this worker's any more; their handlers are stopped", tasks=_lost(lost))
            telemetry.metrics().fenced_writes_total.labels("inventory").inc(len(lost))
            self._supervisor.abandon(lost)


def _give_back(row: Held) -> Ending:
    return Ending(id=row.id, attempt=row.attempt, claim=row.claim, cause=Cause.RELEASE, reason=Reason.FORGOTTEN)


def _names(rows: list[Held]) -> list[str]:
    return [str(row.id) for row in rows][:10]


def _lost(jobs: list[Job]) -> list[str]:
    return [str(job.task.id) for job in jobs][:10]


class LogKeeper:
    """What running tasks log, into PostgreSQL once a second: hints for people, so a failure only loses them."""

    def __init__(self, database: Database, holding: Holding) -> None:
        self._database = database
        self._holding = holding

    async def serve(self) -> None:
        """Keep logs, for ever."""
        while True:
            heed_cancel()
            await clock.system.sleep(_TELL_SECONDS)
            jobs = [job for job in self._holding.jobs.values() if job.logs]
            if jobs:
                await self._keep(jobs)

    async def _keep(self, jobs: list[Job]) -> None:
        chunks: dict[Key, queue.LogChunk] = {}
        for job in jobs:
            text, job.logs = "".join(job.logs), []
            chunks[job.key] = queue.LogChunk(id=job.task.id, attempt=job.task.attempt, claim=job.task.claim, text=text)
        try:
            async with self._database.connection() as tx:
                await queue.append_logs(tx, list(chunks.values()))
        except CommitUnknown:
            return  # better a line lost than a line twice
        except Unavailable:
            for job in jobs:
                job.logs.insert(0, chunks[job.key].text)  # what ended meanwhile has lost these lines
        except Exception as refused:  # noqa: BLE001 - a text that PostgreSQL cannot store costs this second's lines only
            log.warning("log lines were refused", error=str(refused)[:300])
