"""One child process: started, spoken to, and ended. It runs user code; nothing it does or says is trusted.

Owns its frames; forked.py has the process. Who is put into it is children.py's, what its death means supervisor.py's.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from core import clock
from core.domain.ordering import Lane
from services.worker.forked import UNKNOWN, Forked
from services.worker.mark import Mark
from taskflow_queue import protocol as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.worker.allowance import Allowance
    from services.worker.forks import ForkServer
    from services.worker.holding import Job, Key
    from services.worker.warden import Warden

_IDLE_SECONDS: Final = 30.0  # for an idle child to exit by itself, once it was told to
_LAST_WORDS: Final = 0.5  # seconds for what a dead child still has in its socket, when a process of its holds it open


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """How children are made."""

    forks: ForkServer
    modules: tuple[str, ...]
    slots: int
    memory: Allowance
    warden: Warden


class Watcher(Protocol):
    """Who is told what a child says, and that it died."""

    def sent(self, jobs: list[Job]) -> None:
        """Tasks were sent to a child: from now on they run."""
        ...

    def heard(self, child: Child, messages: list[wire.ToSupervisor]) -> None:
        """Messages arrived."""
        ...

    def died(self, child: Child) -> None:
        """It is gone, and everything it had said was heard."""
        ...


class Child(asyncio.Protocol):
    """A process and the socket to it. `open` is whether it may be given more; `jobs` is what was sent and not ended."""

    _watcher: Watcher

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self.jobs: dict[Key, Job] = {}
        self.counts = dict.fromkeys(Lane, 0)
        self.ready = False
        self.open = True
        self.killed_for = ""  # why the supervisor killed it, if it did
        self.broken: str | None = None  # what it said when its modules could not be imported
        self.status: int | None = None  # as waitpid has it: negative is a signal
        self.born = clock.monotonic()
        self.baseline = 0  # bytes that it used when its modules were imported
        self._decoder = wire.SupervisorDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._process: Forked | None = None
        self._heard_all = False
        self._pings = 0
        self._pongs = 0
        self._mark = Mark()
        self.moved = 0.0  # when its async lane was last put to work, or a task of it ended
        self._sent = 0  # async tasks; each knows its place among them

    # ── life ──

    def start(self) -> socket.socket:
        """Have it forked. It imports while the caller does something else; `attach` opens the ear for it.

        Raises OSError when nothing can be forked just now.
        """
        ours, theirs = socket.socketpair()
        hello = wire.Hello(wire.VERSION, list(self._settings.modules), self._settings.slots)
        try:
            with theirs:
                self._settings.forks.fork(theirs.fileno(), self._mark.open(), self._settings.memory.wall)
            ours.sendall(wire.encode([hello]))
        except OSError:
            ours.close()
            raise
        ours.settimeout(0)
        return ours

    async def attach(self, ours: socket.socket, watcher: Watcher) -> None:
        """Listen to the socket; the first that comes is the number of the process."""
        self._watcher = watcher
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self, ours)

    def _born(self, pid: int) -> None:
        """Know the process from now on."""
        if self._process is None:
            self._settings.warden.watch(pid)
            self._process = Forked(pid, self._exited)
            if self.killed_for:
                self._process.kill()

    @property
    def pid(self) -> int:
        """The process id; 0 while it has none."""
        return self._process.pid if self._process else 0

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.status is None

    def waiting(self) -> list[Job]:
        """Return what was in it and had not begun, by its own note. Once, after its death."""
        begun = self._mark.take()
        running = begun.sync if begun.sync in self.jobs else None
        return [
            job
            for job in self.jobs.values()
            if (job.place > begun.asyncs if job.lane is Lane.ASYNC else running is not None and job.key != running)
        ]

    def kill(self, why: str) -> None:
        """End it now, with every process it has started in its session."""
        self.open = False
        self.killed_for = self.killed_for or why
        if self._process is not None:
            self._process.kill()

    def nudge(self) -> None:
        """Send SIGTERM: its sync task is interrupted if it was asked to stop before, nothing else is."""
        if self._process is not None:
            self._process.nudge()

    def _exited(self, status: int) -> None:
        self._settings.warden.forget(self.pid)
        self.open = False
        self.status = status
        if self._heard_all:
            self._watcher.died(self)
        elif self._transport is not None:
            asyncio.get_running_loop().call_later(_LAST_WORDS, self._transport.abort)

    # ── the socket ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to it."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what it says; one that does not keep to the protocol is ended."""
        try:
            messages = self._decoder.feed(data)
        except wire.FrameError as wrong:
            self._note(wrong.before)
            self.kill("protocol")
            return
        self._note(messages)
        self._watcher.heard(self, messages)

    def _note(self, messages: Sequence[wire.ToSupervisor]) -> None:
        for message in messages:
            if isinstance(message, wire.Pong):
                self._pongs = max(self._pongs, message.n)
            elif isinstance(message, wire.Born):
                self._born(message.pid)

    def connection_lost(self, _exc: Exception | None) -> None:
        """All is heard; a process that closed its socket and lives on is of no use."""
        self._heard_all = True
        if self._process is None:  # there never was one
            self.open = False
            self.status = UNKNOWN
        if self.status is not None:
            self._watcher.died(self)
        elif self._process is not None:
            # Exiting by itself just now, or not: the kill changes nothing for the first.
            asyncio.get_running_loop().call_later(_LAST_WORDS, self._process.kill)

    def send(self, messages: list[wire.ToChild]) -> None:
        """Say it; to a dead one it is said in vain."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.encode(messages))

    # ── what is in it ──

    def put(self, jobs: list[Job]) -> None:
        """Send tasks to it."""
        now = clock.monotonic()
        if not self.counts[Lane.ASYNC]:
            self.moved = now
        messages: list[Any] = []
        for job in jobs:
            if job.lane is Lane.ASYNC:
                self._sent = job.place = self._sent + 1
            job.child = self
            job.begun = now
            self.jobs[job.key] = job
            self.counts[job.lane] += 1
            messages.append(_run(job))
        self.send(messages)
        self._watcher.sent(jobs)

    def take(self, job: Job, now: float) -> None:
        """Note that a task is not in it any more, as far as this worker is concerned."""
        if self.jobs.pop(job.key, None) is not None:
            self.counts[job.lane] -= 1
            if job.lane is Lane.ASYNC:
                self.moved = now

    def cancel(self, jobs: list[Job]) -> None:
        """Ask tasks to stop."""
        self.send([wire.Cancel(*job.key) for job in jobs])

    def ping(self) -> int:
        """Ask whether its loop is free; see `answered`."""
        self._pings += 1
        self.send([wire.Ping(self._pings)])
        return self._pings

    def answered(self, ping: int) -> bool:
        """Whether it answered that ping, or a later one."""
        return self._pongs >= ping

    def stop(self) -> None:
        """Let it exit, it is idle; what a task has left behind in its loop may keep it from hearing that."""
        self.open = False
        self.killed_for = self.killed_for or "idle"
        self.send([wire.Stop()])
        asyncio.get_running_loop().call_later(_IDLE_SECONDS, self.kill, "idle")

    def waits_since(self, lane: Lane, slots: int) -> float:
        """Return when it was sent the first task of a lane that its `slots` do not run yet; tasks begin in order.

        Infinity when none waits.
        """
        sent = (job.begun for job in self.jobs.values() if job.lane is lane)
        return next(itertools.islice(sent, slots, None), math.inf)

    def recall(self, lane: Lane) -> None:
        """Have the tasks of a lane that it has not begun back."""
        self.send([wire.Recall(sync=lane is Lane.SYNC)])

    def room(self, lane: Lane, most: int) -> int:
        """How many more of a lane it may be given now, so that it holds no more than `most`."""
        return max(most - self.counts[lane], 0) if self.ready and self.open else 0


def _run(job: Job) -> wire.Run:
    task = job.task
    return wire.Run(
        task.id.bytes,
        task.attempt,
        task.type,
        task.payload.encode(),
        job.terms.timeout,
        job.terms.soft_timeout,
        task.queue,
        task.priority.value,
        task.retry_count,
        task.created_at,
    )
