"""The children of this worker: how many there are, which task goes into which, and who replaces a dead one.

Shared children run anything. A task under suspicion goes into one of at most two dedicated children, in no larger
company than it may have; it waits here until there is room. What a death means is not decided here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from core.domain.ordering import Lane
from services.worker.allowance import Budget
from services.worker.child import Child, ChildSettings
from services.worker.memory import MemoryWatch
from services.worker.prefetch import Prefetch

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Iterable, Iterator

    from services.worker.child import Watcher
    from services.worker.holding import Job

MOST_DEDICATED: Final = 2
BROKEN_SECONDS: Final = 5.0  # before modules that could not be imported are tried again
SLOW_SECONDS: Final = 30.0  # of a start before it is told of, and again each time
START_SECONDS: Final = 600.0  # for a child to import its modules
NEIGHBOUR_SECONDS: Final = 30.0  # how long the neighbours of a stuck task may still run
log = telemetry.get_logger("worker.children")


class Children:
    """All processes of this worker, by what they are for."""

    _watcher: Watcher

    def __init__(self, settings: ChildSettings, *, count: int, budget: Budget | None = None) -> None:
        self._settings = settings
        self._budget = budget or Budget()
        self.count = count
        self.shared: list[Child] = []
        self.dedicated: list[Child] = []
        self.leaving: list[Child] = []  # closed, and not dead yet
        self.waiting: dict[Lane, deque[Job]] = {lane: deque() for lane in Lane}
        self.suspects: deque[Job] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said_broken = ""
        self._closed = False
        self._again: asyncio.TimerHandle | None = None
        slots = {Lane.SYNC: 1, Lane.ASYNC: settings.slots}
        self.prefetch = {lane: Prefetch(lane, slots[lane], lambda: self.shared) for lane in Lane}

    # ── life ──

    async def attach_first(self, started: list[tuple[Child, socket.socket]], watcher: Watcher) -> None:
        """Listen to those that were started before there was a loop, and watch what children use."""
        self._watcher = watcher
        for child, end in started:
            self.shared.append(child)
            self._expect(child)
            await child.attach(end, watcher)
        if (memory := self._settings.memory).most:
            log.info("what a child may use", megabytes=memory.most, wall=memory.wall, set=memory.firm)
            self._spawn(MemoryWatch(self, lambda: self._settings.memory).serve())

    def close(self) -> None:
        """Kill them all, now, and replace none."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        for task in self._tasks:
            task.cancel()
        for child in self:
            child.kill("close")

    def __iter__(self) -> Iterator[Child]:
        return iter([*self.shared, *self.dedicated, *self.leaving])

    def _add(self, group: list[Child]) -> bool:
        """Start one more; False when that is not possible just now, and is tried again in a while."""
        if self._again is not None:
            return False
        child = Child(self._settings)
        try:
            end = child.start()
        except OSError as wrong:
            log.error("no child can be started; the worker tries again every few seconds", error=str(wrong))  # noqa: TRY400 - no trace of ours says more
            self._again = asyncio.get_running_loop().call_later(BROKEN_SECONDS, self._try_again)
            return False
        group.append(child)
        self._expect(child)
        self._spawn(child.attach(end, self._watcher))
        return True

    def _expect(self, child: Child) -> None:
        asyncio.get_running_loop().call_later(SLOW_SECONDS, self._late, child)

    def _late(self, child: Child) -> None:
        """Tell of one that is not ready yet, and end it when there is no hope."""
        if child.ready or not child.alive or self._closed:
            return
        seconds = round(clock.monotonic() - child.born)
        log.warning(
            "a child is not ready: does a module wait for something while it is imported?",
            pid=child.pid,
            seconds=seconds,
            is_ended_after=START_SECONDS,
        )
        if seconds >= START_SECONDS and child.open:
            self.condemn(child, "start")
        self._expect(child)

    def _try_again(self) -> None:
        self._again = None
        self._replace()
        self.pump()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def condemn(self, child: Child, why: str) -> None:
        """Give it nothing more and replace it; it is killed when its neighbours have ended, or have had their time."""
        child.killed_for = child.killed_for or why
        child.open = False
        self._part_with(child)
        if child.jobs:
            asyncio.get_running_loop().call_later(NEIGHBOUR_SECONDS, child.kill, why)
        else:
            child.kill(why)

    def settled(self, child: Child) -> None:
        """Note that tasks in it ended: one that was condemned and is empty now goes at once."""
        if not child.open and not child.jobs and child.alive and child.killed_for != "idle":
            child.kill("empty")

    def resize(self, count: int) -> None:
        """Have so many shared children from now on: new ones start, those too many end their tasks and go."""
        self.count = count
        self._settings = replace(self._settings, memory=self._budget.share(count))
        self._replace()
        for child in sorted(self.shared, key=lambda one: len(one.jobs))[: max(len(self.shared) - count, 0)]:
            self.shared.remove(child)
            self.leaving.append(child)
            child.open = False
            if not child.ready:
                child.kill("resize")  # it would not hear a Stop before it has said that it is ready
            elif not child.jobs:  # else it goes when it has settled, and until then its death is no less a crash
                child.stop()

    def gone(self, child: Child) -> None:
        """Note a death, and make a replacement where one is needed."""
        if child.broken is not None:
            self._tell_broken(child.broken)
        self._part_with(child, pause=BROKEN_SECONDS if child.broken is not None or not child.ready else 0.0)
        if child in self.leaving:
            self.leaving.remove(child)

    def _part_with(self, child: Child, pause: float = 0.0) -> None:
        """Move it out of the way; its place is taken by a new one."""
        if child in self.shared:
            self.shared.remove(child)
            if not self._closed:
                asyncio.get_running_loop().call_later(pause, self._replace)
        elif child in self.dedicated:
            self.dedicated.remove(child)
            if pause and not self._closed:  # it could not even start: those who wait try again later
                asyncio.get_running_loop().call_later(pause, self.pump)
        if child.alive and child not in self.leaving:
            self.leaving.append(child)

    def _replace(self) -> None:
        while len(self.shared) < self.count and not self._closed and self._add(self.shared):
            pass

    def _tell_broken(self, message: str) -> None:
        level = log.debug if message == self._said_broken else log.error
        self._said_broken = message
        level("modules cannot be imported; the worker tries again every few seconds", traceback=message)

    # ── who goes where ──

    def free(self, lane: Lane) -> int:
        """How many more tasks of a lane may be claimed: free places, less those already promised."""
        most = self.prefetch[lane].most()
        places = sum(child.room(lane, most) for child in self.shared)
        promised = len(self.waiting[lane]) + sum(1 for job in self.suspects if job.lane is lane)
        return max(places - promised - sum(child.counts[lane] for child in self.dedicated), 0)

    def places(self, lane: Lane) -> int:
        """How many tasks of a lane the shared children hold when they are full."""
        return self.prefetch[lane].most() * sum(1 for child in self.shared if child.ready and child.open)

    def idle(self, lane: Lane) -> int:
        """How many of the places that this worker has registered are free."""
        slots = self.prefetch[lane].slots
        return min(sum(child.room(lane, slots) for child in self.shared), self.free(lane))

    def place(self, jobs: Iterable[Job]) -> None:
        """Send tasks to children, one frame a child; what finds no room waits for the next child that is ready."""
        for job in jobs:
            if job.task.isolation:
                self.suspects.append(job)
            else:
                self.waiting[job.lane].append(job)
        self.pump()

    def pump(self) -> None:
        """Place what waits, as far as there is room."""
        if self._closed:
            return
        shares: dict[Child, list[Job]] = defaultdict(list)
        for lane, waiting in self.waiting.items():
            if waiting:
                _share_out(self.shared, lane, waiting, shares, self.prefetch[lane].most())
        for child, share in shares.items():
            child.put(share)
            for lane, measure in self.prefetch.items():
                if child.counts[lane] > measure.slots:
                    measure.watch()
        if self.suspects or self.dedicated:
            self._place_suspects()

    def drop(self, jobs: Iterable[Job]) -> None:
        """Take tasks out, wherever they are."""
        now = clock.monotonic()
        for job in jobs:
            if job.child is not None:
                job.child.take(job, now)
                continue
            for queue in (self.waiting[job.lane], self.suspects):
                if job in queue:
                    queue.remove(job)

    def _place_suspects(self) -> None:
        for job in list(self.suspects):
            child = next((child for child in self.dedicated if _fits(child, job)), None)
            if child is not None:
                self.suspects.remove(job)
                child.put([job])
        starting = any(child.open and not child.ready for child in self.dedicated)
        if self.suspects and not starting and len(self.dedicated) < MOST_DEDICATED:
            self._add(self.dedicated)
        for child in list(self.dedicated):
            if not self.suspects and child.ready and not child.jobs:
                self.dedicated.remove(child)
                self.leaving.append(child)
                child.stop()


def _fits(child: Child, job: Job) -> bool:
    """Whether a suspect may join a dedicated child: nobody there may get more company than allowed."""
    if child.room(job.lane, 1) < 1:
        return False
    company = len(child.jobs) + 1
    return company <= job.task.isolation and all(company <= other.task.isolation for other in child.jobs.values())


def _share_out(
    children: list[Child], lane: Lane, waiting: deque[Job], shares: dict[Child, list[Job]], most: int
) -> None:
    """Deal tasks out in turn, always to the least busy; a child with a sync task in it comes last for async ones."""
    room = {child: places for child in children if (places := child.room(lane, most))}
    load = {child: sum(child.counts.values()) + 50 * child.counts[Lane.SYNC] for child in room}
    while waiting and room:
        least = min(load.values())
        idlest = [child for child, busy in load.items() if busy == least]
        step = min((busy - least for busy in load.values() if busy > least), default=len(waiting))
        turns = min(step, max(len(waiting) // len(idlest), 1), *(room[child] for child in idlest))
        dealt = [waiting.popleft() for _ in range(min(turns * len(idlest), len(waiting)))]
        for at, child in enumerate(idlest):
            share = dealt[at :: len(idlest)]
            shares[child] += share
            load[child] += len(share)
            room[child] -= len(share)
            if not room[child]:
                del room[child], load[child]
