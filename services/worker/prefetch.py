"""How many sync tasks a child is given at once: one that runs, and behind it what it will begin within a moment.

A sync task takes its child alone, so a short one costs a claim and two ways through the socket of its own. Short ones
may therefore wait in the child, as many as end within AHEAD_SECONDS. Whoever is wrong about that pays at once: when
nothing has ended for PATIENCE_SECONDS, what has not begun is given back, and the next ones come one by one.
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
PATIENCE_SECONDS: Final = 0.5  # a busy machine may well leave a child alone for a tenth of that
MOST: Final = 64
_UNKNOWN: Final = 1.0  # what a task is taken for before any has run
_DECAY: Final = 0.9
_LOOK_SECONDS: Final = 0.05


class Prefetch:
    """One worker's measure: the run time that its sync tasks have lately not exceeded by much."""

    def __init__(self, children: Callable[[], Iterable[Child]]) -> None:
        self._children = children
        self._slow = _UNKNOWN
        self._watching = False

    def most(self) -> int:
        """Return how many sync tasks a child may hold."""
        return max(1, min(MOST, int(AHEAD_SECONDS / max(self._slow, 1e-6))))

    def ran(self, seconds: float) -> None:
        """Take a run time in: a long one counts at once, and is forgotten slowly."""
        self._slow = seconds if seconds > self._slow else _DECAY * self._slow + (1 - _DECAY) * seconds

    def watch(self) -> None:
        """Look at the children until none has a sync task that waits."""
        if not self._watching:
            self._watching = True
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        waiting = [child for child in self._children() if child.counts[Lane.SYNC] > 1]
        late = clock.monotonic() - PATIENCE_SECONDS
        for child in waiting:
            if child.moved < late:
                child.recall()
                self._slow = _UNKNOWN
        self._watching = bool(waiting)
        if waiting:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
