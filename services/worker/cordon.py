"""The cordon: claiming nothing without leaving, and saying so in the one way that Kubernetes heeds.

A ReplicaSet that becomes smaller ends its pods that are not ready first. So this worker is not ready when, and only
when, it is cordoned and PostgreSQL has confirmed that it holds nothing; who ends it then ends no task. `resting` is
that state. It never begins while a claim is under way, because a claim that was sent before the cordon may come back
with tasks. Once it has been seen by a probe, nothing is claimed before a probe has seen its end as well.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from core import queue_manager as queue
from core.errors import Unavailable
from core.pool import heed_cancel

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.pool import Database
    from services.worker.finishing import Finisher
    from services.worker.holding import Holding
    from services.worker.identity import Identity

RETURN_SECONDS: Final = 5.0  # after a rest: then nobody seems to probe any more, and work goes on
_LOOK_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 1.0  # after PostgreSQL did not confirm
log = telemetry.get_logger("worker.cordon")


class Cordon:
    """Whether this worker may claim, and whether it rests."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        holding: Holding,
        finisher: Finisher,
        *,
        lifted: Callable[[], None],
    ) -> None:
        """`lifted` is called when claims may begin again."""
        self._database = database
        self._identity = identity
        self._holding = holding
        self._finisher = finisher
        self._lifted = lifted
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._turn = 0
        self._seen = threading.Lock()  # a probe that hears of the rest must not come between its end and a claim
        self._seen_resting = False
        self._until = 0.0
        self.resting = False

    @property
    def closed(self) -> bool:
        """Whether this worker is cordoned."""
        return self._closed.is_set()

    @property
    def open(self) -> bool:
        """Whether it may claim."""
        return not self.closed and (not self._seen_resting or clock.monotonic() > self._until)

    @property
    def idle(self) -> bool:
        """Whether nothing is held, being claimed or on its way into PostgreSQL."""
        return self._holding.empty and self._finisher.idle

    def obey(self, *, cordoned: bool) -> None:
        """Do what the answer to a beat says."""
        if cordoned and not self.closed:
            log.info("cordoned: claiming nothing more", running=len(self._holding.jobs))
            self._turn += 1
            self._closed.set()
        elif not cordoned and self.closed:
            self.lift()

    def lift(self) -> None:
        """Go back to work: uncordoned, or under a new id, of which nobody has asked anything yet."""
        if not self.closed:
            return
        log.info("not cordoned any more")
        self._turn += 1
        self._closed.clear()
        with self._seen:
            self.resting = False
            self._until = clock.monotonic() + RETURN_SECONDS
        if self.open:
            self._lifted()

    def probed(self) -> bool:
        """Return whether a probe may hear "ready"; from the probe's own thread."""
        with self._seen:
            if not self.resting and self._seen_resting:
                self._loop.call_soon_threadsafe(self._lifted)
            self._seen_resting = self.resting
            return not self.resting

    async def serve(self) -> None:
        """Notice that a cordoned worker has nothing left, for ever."""
        while True:
            heed_cancel()
            await self._closed.wait()
            pause = _LOOK_SECONDS
            if not self.resting and self.idle and not await self._rest():
                pause = _AGAIN_SECONDS
            await clock.system.sleep(pause)

    async def _rest(self) -> bool:
        """Begin to rest if PostgreSQL, asked after the last claim was answered, says too that nothing is held."""
        turn, worker, secret = self._turn, self._identity.id, self._identity.secret
        try:
            async with self._database.connection() as tx:
                held = await queue.inventory(tx, worker, secret=secret)
        except Unavailable:
            return False
        same = turn == self._turn and worker == self._identity.id
        if held or not (same and self.closed and self.idle):
            return False  # what PostgreSQL knows and this worker does not is given back by the next inventory
        with self._seen:
            self.resting = True
        log.info("cordoned and idle: not ready until the cordon is lifted")
        return True
