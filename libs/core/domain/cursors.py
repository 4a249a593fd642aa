"""Cursors: how far the feeder has read, what it hinted, and how it finds what was made QUEUED behind it.

One for each (queue, type, priority). `seq` grows with every row that becomes QUEUED, but rows commit out of order,
so everything that is still QUEUED behind a cursor is looked at again and again; it is bounded by the windows.
"""

import math
from collections.abc import Sequence

from core.domain.ordering import PriorityType

Route = tuple[str, str, PriorityType]  # queue, type, priority

BEHIND_SECONDS = 5.0
AGAIN_SECONDS = 10.0  # where lanes are hungry, a row that was hinted so long ago and is QUEUED still is hinted again
STALE_SECONDS = 60.0  # where nobody is hungry, it may wait in a list for long; but it may be lost, too
FORGET_SECONDS = 60.0  # of what lies beyond a cursor that went back, nobody knows whether it was claimed
PASS_SLICES = 12  # each time, one cursor in so many starts over: everything is passed over in a minute


class Cursor:
    """One (queue, type, priority). `hot` says that more rows are believed to lie beyond `seq`."""

    __slots__ = ("_doubted", "_floor", "_place", "_still", "_swept", "due", "hinted", "hot", "last", "seq", "turn")

    def __init__(self, now: float, turn: int = 0, floor: int = 0) -> None:
        self.turn = turn
        self._floor = floor
        self.reset(now)

    def reset(self, now: float) -> None:
        """Forget everything: Redis was emptied, the queue resumed, the type is new."""
        self.seq = self._floor
        self.last = 0  # the furthest that `seq` has ever been
        self.hot = True
        self.hinted: dict[int, float] = {}  # seq -> when; a row that is QUEUED anew has a new seq
        self.due = now + BEHIND_SECONDS
        self._doubted = -math.inf  # what was hinted before then may be lost
        self._place = 0
        self._still: set[int] = set()
        self._swept: float | None = None  # since when the look behind is under way

    def passed_over(self) -> int:
        """Return how many rows beyond `seq` may have been hinted already: a reading must reach beyond them."""
        if self.hinted and self.seq < self.last:
            return len(self.hinted)
        return 0

    def sent(self, now: float, seqs: Sequence[int], place: int) -> None:
        """References for `seqs` were added, and everything up to `place` was looked at."""
        self.hinted.update(dict.fromkeys(seqs, now))
        self.seq = max(self.seq, place)
        self.last = max(self.last, self.seq)

    def look(self) -> None:
        """Look behind at the next chance: somebody made a row QUEUED, perhaps there."""
        self.due = 0.0
        self.hot = True  # or beyond

    def doubt(self, now: float) -> None:
        """A reader is gone, perhaps with references in its hands: look behind at the next chance."""
        self.due = 0.0
        self._doubted = now

    def stand(self, floor: int) -> None:
        """Begin there from now on (floors.py)."""
        self._floor = floor
        self.seq = max(self.seq, floor)

    def stale(self, now: float, *, hungry: bool) -> float:
        """Return since when a row must have been hinted for its reference to be good still.

        A reference that was read is in no list any more, and whoever read it may have died. What is hinted twice costs
        a look at a row that was claimed already.
        """
        old = now - AGAIN_SECONDS
        return old if hungry else max(now - STALE_SECONDS, min(old, self._doubted))

    def behind(self, now: float) -> int | None:
        """Return from where to look behind, or None when it is not time."""
        if now < self.due or self.seq <= self._floor:
            return None
        if self._swept is None:
            self._swept, self._place, self._still = now, self._floor, set()
        return self._place

    def found(self, now: float, seqs: Sequence[int], *, limit: int, hungry: bool) -> bool:
        """Take what is QUEUED there, in order; True when the cursor went back to a row that needs a hint.

        `hungry` says that lanes could take more than what waits: then a hint that is old must have been lost.
        """
        started = now if self._swept is None else self._swept
        stale = self.stale(now, hungry=hungry)
        for seq in seqs:
            if seq > self.seq:
                break
            if self.hinted.get(seq, -math.inf) <= stale:
                self._prune(now, started, last=seq)
                self.seq = seq - 1
                self.hot = True
                self._end(now)
                return True
            self._still.add(seq)
        if len(seqs) >= limit and seqs[-1] < self.seq:
            self._place = seqs[-1]
            return False
        self._prune(now, started, last=self.seq)
        self._end(now)
        return False

    def _prune(self, now: float, started: float, *, last: int) -> None:
        """Forget what was hinted before the look began and, up to `last`, is not there any more: it was claimed."""
        still = self._still
        self.hinted = {
            seq: at
            for seq, at in self.hinted.items()
            if seq in still or at >= started or (seq > last and now - at < FORGET_SECONDS)
        }

    def _end(self, now: float) -> None:
        self._swept = None
        self._still = set()
        self.due = now + BEHIND_SECONDS
        self.turn += 1
        if self.turn % PASS_SLICES == 0:
            self.seq = self._floor  # what was hinted is passed over
            self.hot = True
