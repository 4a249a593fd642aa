"""Deadlines of attempts on the monotonic clock: what the children do not do by themselves, the supervisor does.

A child ends its tasks at their limits, and on request. This says when it should have: then the task is interrupted,
and then ended without the child. Only running attempts are kept here, so nothing of an ended one stays.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from core import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.worker.holding import Job, Key

OVERTIME_SECONDS: Final = 1.0  # what a child has to end a task at its limit before it is done without the child
INTERRUPT_SECONDS: Final = 5.0  # after a request to stop
KILL_SECONDS: Final = 10.0  # after a request to stop
_LOOK_SECONDS: Final = 0.1


class Stage(StrEnum):
    """What is due."""

    LIMIT = "limit"  # the hard limit is reached: is the child's loop free?
    OVERTIME = "overtime"  # the child did not end it
    INTERRUPT = "interrupt"  # it was asked to stop and did not
    KILL = "kill"  # nor when it was interrupted


class Limits:
    """The deadlines of what runs, looked at ten times a second while there are any."""

    def __init__(self, reached: Callable[[Job, Stage], None]) -> None:
        self._reached = reached
        self._watched: dict[Key, list[tuple[float, Stage]]] = {}
        self._jobs: dict[Key, Job] = {}
        self._looking = False

    def watch(self, jobs: Iterable[Job]) -> None:
        """Note the limits of tasks that were sent to a child."""
        for job in jobs:
            if job.terms.timeout is not None:
                self.add(job, Stage.LIMIT, job.terms.timeout)

    def stopping(self, job: Job, *, at_once: bool = False) -> None:
        """Note that a task was asked to stop just now; `at_once` leaves it no more than a second."""
        self.add(job, Stage.INTERRUPT, 0.0 if at_once else INTERRUPT_SECONDS)
        self.add(job, Stage.KILL, OVERTIME_SECONDS if at_once else KILL_SECONDS)

    def add(self, job: Job, stage: Stage, seconds: float) -> None:
        """Note one deadline, in so many seconds from now."""
        self._jobs[job.key] = job
        self._watched.setdefault(job.key, []).append((clock.monotonic() + seconds, stage))
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def forget(self, jobs: Iterable[Job]) -> None:
        """Forget tasks that ended."""
        for job in jobs if self._watched else ():
            if self._watched.pop(job.key, None) is not None:
                del self._jobs[job.key]

    def _look(self) -> None:
        now = clock.monotonic()
        for key, dues in list(self._watched.items()):
            for due in [due for due in dues if due[0] <= now]:
                dues.remove(due)
                if key in self._jobs:  # what was due first may have ended it
                    self._reached(self._jobs[key], due[1])
        self._looking = bool(self._watched)
        if self._looking:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
