"""The worker as a whole: who speaks to whom, its registration, its deaths and its way out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from core import clock, telemetry
from core import queue_manager as queue
from core.domain.ordering import Lane
from core.errors import TaskFlowError, Unavailable
from core.pool import heed_cancel
from services.worker.beating import Beater, LogKeeper
from services.worker.catalogue import Catalogue
from services.worker.claiming import Claimer
from services.worker.cordon import Cordon
from services.worker.draining import Drain
from services.worker.finishing import Finisher
from services.worker.holding import Holding
from services.worker.identity import Identity
from services.worker.lane import Intake, Sources
from services.worker.progress import ProgressWriter
from services.worker.sizing import Sizing
from services.worker.solo import Solo
from services.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from core.pool import Database
    from core.references import References
    from services.worker.children import Children
    from taskflow_queue.protocol import Ready

_LAST_FRAMES: Final = 0.1  # after a pause of this process: what children have said meanwhile is read first
_FLUSH_SECONDS: Final = 10.0
_REGISTER_PAUSE: Final = 0.5
log = telemetry.get_logger("worker")


class BrokenModules(TaskFlowError):
    """The user's modules could not be imported by any child at the start."""

    code = "broken_modules"


class Worker:
    """One supervisor process."""

    def __init__(
        self,
        database: Database,
        beats: Database,
        children: Children,
        *,
        queues: tuple[str, ...],
        slots: int,
        interval: float,
        lease: float,
        drain_seconds: float,
        facts: dict[str, str] | None = None,
    ) -> None:
        self._database = database
        self._queues = queues
        self._children = children
        self._slots = slots
        self._drain_seconds = drain_seconds
        self.identity = Identity(lease_seconds=lease, facts=facts)
        self.holding = Holding()
        self.catalogue = Catalogue()
        self.finisher = Finisher(database, self.holding)
        self.supervisor = Supervisor(self.holding, self.catalogue, self.finisher.put, children)
        self._claimer = Claimer(database, self.holding, self.identity)
        self.cordon = Cordon(database, self.identity, self.holding, self.finisher, lifted=self._lifted)
        self._sizing = Sizing(children)
        self._solo = Solo(
            self.holding, self._claimer, self.supervisor.run, may=lambda: not (self._shut or self.identity.uncertain)
        )
        self._intakes = {lane: self._intake(lane) for lane in Lane}
        self._beater = Beater(
            beats,
            self.identity,
            self.holding,
            self.supervisor,
            self.finisher,
            self.cordon,
            interval=interval,
            free=lambda lane: 0 if self._shut or self.finisher.refusing else self._children.idle(lane),
            reborn=self._reborn,
            sized=self._sized,
        )
        self._progress = ProgressWriter(database, self.holding)
        self._drain = Drain(database, self.holding, self.supervisor, self.finisher)
        self._references: References | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._errands: set[asyncio.Task[None]] = set()  # what ends by itself
        self._registering = asyncio.Lock()
        self._cancels: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.draining = False
        self._listen()

    def _listen(self) -> None:
        """Hear what the parts have to say to the whole."""
        self.supervisor.on_ready = self._on_ready
        self.supervisor.on_broken = self._on_broken
        self.supervisor.on_room = self._on_room
        self.finisher.on_back = self._on_room
        self._beater.on_beat = self._progress.trigger
        self._beater.on_drain = self._stop.set  # somebody else cordoned it; our own drain is told here as well

    def probed(self) -> bool:
        """Whether a probe, in another thread, is told "ready": once registered, unless it is idle and takes no more.

        Load and stores do not count, nor a death and the new id after it: who is not ready is ended first.
        """
        gone = self.draining and self.cordon.idle
        return self.identity.known and self.cordon.probed() and not (gone or self.finisher.useless)

    @property
    def _shut(self) -> bool:
        """Whether others shall run what comes."""
        return self.draining or not self.cordon.open

    # ── life ──

    async def run(self) -> None:
        """Work until told to stop, then leave. Raises BrokenModules when no child can be started at all."""
        stopped = asyncio.ensure_future(self._stop.wait())
        started = asyncio.ensure_future(self._start())
        await asyncio.wait([stopped, started], return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            return
        started.result()
        self._begin(self.finisher.serve(), LogKeeper(self._database, self.holding).serve(), self._beater.serve())
        self._begin(self._progress.serve(), self.cordon.serve())
        self._begin(*(intake.serve() for intake in self._intakes.values()), self._solo.serve(self._on_room))
        await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in filter(asyncio.Task.done, self._tasks):
            task.result()  # none of them ends by itself: a mistake of ours ends the process, loudly
        await self._leave()

    async def _start(self) -> None:
        await self._first
        await self._register()
        log.info("ready", id=str(self.identity.id), types=self._counts())

    def stop(self) -> None:
        """Drain and leave; said twice, leave now."""
        if self._stop.is_set():
            self._drain.hurry()
        self._stop.set()

    async def connect(self, references: References) -> None:
        """Use Redis from now on: references, hints, and cancels without waiting for a beat."""
        self._references = references
        self.finisher.hint = references.hint_moved
        if self.identity.registered:
            await self._open()

    def _begin(self, *loops: Coroutine[Any, Any, None]) -> None:
        self._tasks += [asyncio.get_running_loop().create_task(loop) for loop in loops]

    def _send(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _leave(self) -> None:
        self.draining = True
        await self._drain.cordon(self.identity.id, self.identity.secret)
        for intake in self._intakes.values():
            await intake.leave()
        await self._drain.empty(self._drain_seconds)
        await self._drain.retire(self.identity.id, self.identity.secret)
        for task in [*self._tasks, *self._errands, *([self._cancels] if self._cancels else [])]:
            task.cancel()
        await self._beater.leave()
        self._children.close()
        log.info("left", id=str(self.identity.id))

    # ── registration ──

    async def _register(self) -> None:
        """Introduce this worker until PostgreSQL knows it, then open the lanes; one at a time."""
        async with self._registering:
            while not await self._introduced():
                heed_cancel()
            self.identity.registered = self.identity.known = True
            self.identity.beaten()
            await self._open()

    async def _introduced(self) -> bool:
        queues = self.catalogue.queues(self._queues)
        try:
            async with self._database.connection() as tx:
                await self._sizing.look(tx, queues)
                face = self.identity.face(self.catalogue, queues, children=self._children.count, slots=self._slots)
                if await queue.register_worker(tx, face):
                    return True
            self.identity.renew()  # an answer was lost, and the leader was quicker than this process
        except Unavailable as away:
            log.warning("cannot register yet", error=str(away))
            await clock.system.sleep(_REGISTER_PAUSE * (0.5 + clock.rand()))
        return False

    async def _sized(self, tx: Any) -> None:
        """Tell PostgreSQL when another number of children was wanted."""
        if not self.draining and await self._sizing.look(tx, self.catalogue.queues(self._queues)):
            self._send(self._register())

    async def _open(self) -> None:
        """Give the lanes their sources under the present id."""
        queues = self.catalogue.queues(self._queues)
        for lane, intake in self._intakes.items():
            await intake.leave()
            types, reader = self.catalogue.types(lane), None
            if self._references is not None and types:
                reader = self._references.reader(worker=self.identity.id, lane=lane, queues=queues, types=types)
            intake.sources = Sources(queues=queues, types=types, reader=reader)
        if self._references is not None:
            if self._cancels is not None:
                self._cancels.cancel()
            self._cancels = asyncio.get_running_loop().create_task(self._hear_cancels(self._references))
        self._on_room()

    async def _reborn(self) -> None:
        """Go on under a new id: outcomes are sent first and refused by PostgreSQL, then what still runs is killed.

        A cordon was the old id's: the new one comes up alive, and may be cordoned anew.
        """
        self.identity.registered = False
        await clock.system.sleep(_LAST_FRAMES)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self.finisher.flushed()
        self.supervisor.abandon_all()
        self.identity.renew()
        if not self.draining:
            await self._register()
            self.cordon.lift()
            log.info("goes on under a new id", id=str(self.identity.id))

    async def _hear_cancels(self, references: References) -> None:
        """Cancel at once what somebody asks for in Redis; the beats say the same a little later."""
        async for ask in references.cancels(self.identity.id):
            wanted = {task.bytes for task in ask.ids}
            jobs = [job for job in self.holding.jobs.values() if job.key[0] in wanted]
            if ask.force:
                self.supervisor.abandon(jobs)
            else:
                self.supervisor.cancel(jobs, asked="user")

    # ── what the others tell ──

    def _intake(self, lane: Lane) -> Intake:
        return Intake(
            lane,
            self._database,
            self._claimer,
            self._solo,
            free=lambda: self._free(lane),
            places=lambda: self._children.places(lane),
            shut=lambda: self._shut,
            run=self.supervisor.run,
        )

    def _free(self, lane: Lane) -> int:
        """How many tasks of a lane may be claimed now: none while the worker is unsure of itself, or full of ends."""
        if self.identity.uncertain or self._solo.shut or self._shut or self.finisher.full or self.finisher.away:
            return 0
        return self._children.free(lane)

    def _on_ready(self, ready: Ready) -> None:
        if self.catalogue.learn(ready.definitions) and self.identity.registered:
            log.info("a new child announces other tasks than those before; registering them", types=self._counts())
            self._send(self._register())
        if not self._first.done():
            self._first.set_result(None)

    def _on_broken(self, message: str) -> None:
        if not self._first.done():
            self._first.set_exception(BrokenModules(f"the modules cannot be imported:\n{message}"))

    def _on_room(self) -> None:
        for lane, intake in self._intakes.items():
            if not intake.room.is_set() and self._free(lane) > 0:
                intake.room.set()

    def _lifted(self) -> None:
        """Look for work at once: nobody has hinted anything to a worker that took none."""
        if not self._shut:
            for intake in self._intakes.values():
                intake.reopen()

    def _counts(self) -> dict[str, int]:
        return {lane.value: len(self.catalogue.types(lane)) for lane in Lane}
