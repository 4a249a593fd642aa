"""Endings that could not be recorded while others could: each is tried again by itself, less and less often.

An ending is never given up here. It leaves when PostgreSQL has recorded it or another owner has the task.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from core import clock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.domain.task import Ending
    from services.worker.holding import Key

MOST_ROWS: Final = 2000
MOST_BYTES: Final = 8 * 1024 * 1024
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_TOGETHER: Final = 0.02  # seconds: endings that are due so close to each other share a statement


class _Waiting(msgspec.Struct):
    """An ending and its next try. `due` is infinite while the try is under way.

    `to_blame` says that it was refused while PostgreSQL took others.
    """

    ending: Ending
    since: float
    pause: float
    due: float
    to_blame: bool = False


class SetAside:
    """The endings that wait for their next try. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._waiting: dict[Key, _Waiting] = {}
        self._next = math.inf

    def __len__(self) -> int:
        """Count them, including those that are being tried."""
        return len(self._waiting)

    def put(self, endings: Iterable[Ending], *, to_blame: bool = False) -> list[Ending]:
        """Try these again after a pause, which doubles each time. Return those that are new here."""
        now, new = clock.monotonic(), []
        for ending in endings:
            key = (ending.id.bytes, ending.attempt)
            if (one := self._waiting.get(key)) is None:
                one = self._waiting[key] = _Waiting(ending, now, _FIRST_PAUSE, math.inf)
                new.append(ending)
            else:
                one.ending, one.pause = ending, min(one.pause * 2, _LONGEST_PAUSE)
            one.to_blame = one.to_blame or to_blame
            one.due = now + one.pause * (0.5 + clock.rand())
            self._next = min(self._next, one.due)
        return new

    def take(self) -> list[Ending]:
        """Return the endings that are due, as many as fit into one statement."""
        now = clock.monotonic()
        if now < self._next:
            return []
        batch: list[Ending] = []
        size, self._next = 0, math.inf
        for one in self._waiting.values():
            if one.due <= now + _TOGETHER and len(batch) < MOST_ROWS and (not batch or size < MOST_BYTES):
                batch.append(one.ending)
                size += size_of(one.ending)
                one.due = math.inf
            else:
                self._next = min(self._next, one.due)
        return batch

    def another(self, than: Ending | None = None) -> Ending | None:
        """Return the ending that is due first, of those that are neither `than` nor to blame themselves."""
        those = (one for one in self._waiting.values() if one.ending is not than and not one.to_blame)
        found = min(those, key=lambda one: one.due, default=None)
        return None if found is None else found.ending

    def blames(self, ending: Ending) -> bool:
        """Whether an ending was refused before while PostgreSQL took others."""
        one = self._waiting.get((ending.id.bytes, ending.attempt))
        return one is not None and one.to_blame

    def settle(self, endings: Iterable[Ending]) -> None:
        """Forget endings that PostgreSQL has recorded, or refused because another owner has the task."""
        if self._waiting:
            for ending in endings:
                self._waiting.pop((ending.id.bytes, ending.attempt), None)

    @property
    def oldest(self) -> float | None:
        """When the first of them was set aside; None when there is none."""
        return next((one.since for one in self._waiting.values()), None)

    @property
    def seconds_to_next(self) -> float | None:
        """How long until an ending is due; None when none waits."""
        return None if math.isinf(self._next) else max(self._next - clock.monotonic(), 0.0)


def size_of(ending: Ending) -> int:
    """Return about how many bytes an ending adds to a statement."""
    return len(ending.result or "") + len(ending.error or "") + len(ending.logs or "") + 200
