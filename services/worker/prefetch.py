"""How many tasks a child is given at once: those that run, and behind them what it will begin within a moment.

A claim, an ending and two ways through the socket cost much the same for one task as for many. Short tasks may
therefore wait in the child, as many as it begins within AHEAD_SECONDS. Whoever is wrong about that pays at once: when
one of them has waited for PATIENCE_SECONDS, what has not begun is given back, and no more come than run at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from core import clock
from core.domain.ordering import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.worker.child import Child

AHEAD_SECONDS: Final = 0.05
AHEAD_BYTES: Final = 4 * 1024 * 1024  # of payloads
PATIENCE_SECONDS: Final = 0.5  # a busy machine may well leave a child alone for a tenth of that
MOST: Final = {Lane.SYNC: 256, Lane.ASYNC: 1000}
_UNKNOWN: Final = 1.0  # what a task is taken for before any has run
_DECAY: Final = {Lane.SYNC: 0.9, Lane.ASYNC: 0.5}  # a sync measure is one task, an async one a batch
_CROWD: Final = 16
_LOOK_SECONDS: Final = 0.05


class Prefetch:
    """One lane's measure: the seconds and the bytes of a task that its tasks have lately not exceeded by much.

    `slots`: how many tasks a child runs at once.
    """

    def __init__(self, lane: Lane, slots: int, children: Callable[[], Iterable[Child]]) -> None:
        self.slots = slots
        self._lane = lane
        self._children = children
        self._pace = _UNKNOWN
        self._fresh = True
        self._large = 0.0
        self._watching = False

    def most(self) -> int:
        """Return how many tasks a child may hold."""
        soon = min(AHEAD_SECONDS / max(self._pace, 1e-6), AHEAD_BYTES / max(self._large, 1.0))
        return max(self.slots, min(MOST[self._lane], int(soon)))

    def took(self, seconds: float, *, tasks: int = 1, full: bool = True) -> None:
        """Take in how long one task keeps a child from the next; a long time counts at once and is forgotten slowly.

        `tasks`: how many were measured together; a crowd is believed at once when it is the first. `full`: whether the
        child had as many as it runs at once. One that had fewer may be slow, but is not known to be quick.
        """
        if self._fresh and full and tasks >= _CROWD:
            self._pace = seconds
        elif full or seconds > self._pace:
            self._pace = _slowly(self._pace, seconds, _DECAY[self._lane])
        self._fresh = self._fresh and not full

    def weighed(self, payload: int) -> None:
        """Take in the largest payload of a batch, in bytes."""
        self._large = _slowly(self._large, payload, _DECAY[self._lane])

    def watch(self) -> None:
        """Look at the children until none has a task that waits."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        waiting = [child for child in self._children() if child.counts[self._lane] > self.slots]
        late = clock.monotonic() - PATIENCE_SECONDS
        for child in waiting:
            if child.waits_since(self._lane, self.slots) < late:
                child.recall(self._lane)
                self._pace = _UNKNOWN
        self._watching = bool(waiting)
        if waiting:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)


def _slowly(before: float, now: float, decay: float) -> float:
    return now if now > before else decay * before + (1 - decay) * now
