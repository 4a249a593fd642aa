"""Floors: below a route's floor no row is QUEUED, and none ever will be. Who looks for QUEUED rows starts there.

What was claimed since somebody's oldest snapshot still stands in the index. Without floors a new leader, or a poll that
begins at the beginning, would visit all of it.

A row gets a higher `seq` than all before whenever it becomes QUEUED, so a floor that was true once stays true. Only one
thing can appear below: a row whose transaction drew its `seq` before we looked and commits after it. How far the
sequence is free of those is what `Settled` tells.
"""

from dataclasses import dataclass

LEAST_STEP = 10_000  # a floor is raised by no less, nor for fewer events: so many rows cost nobody anything


@dataclass(frozen=True, slots=True)
class SequenceLook:
    """How far the sequence has come, and PostgreSQL's transactions with it.

    `last` is the last `seq` given out; every transaction below `oldest` has ended, and none has `next` yet. `events` is
    how much has happened to tasks.
    """

    last: int
    oldest: int
    next: int
    events: int = 0


class Settled:
    """How far the order of starting is settled: who drew a `seq` up to there has committed, or never will."""

    def __init__(self) -> None:
        self.seq = 0
        self.events = 0  # how much had happened when that was drawn
        self._first: SequenceLook | None = None
        self._until = 0
        self._latest = SequenceLook(0, 0, 0)

    def step(self, look: SequenceLook) -> int:
        """Take a look, and return how far the sequence is settled.

        Three looks settle what the first one saw. A `seq` may be drawn a moment before its transaction has a number,
        so the transactions to wait for are those of the second. Where numbers have gone back, PostgreSQL was set back
        to an earlier time, and nothing that was seen counts.
        """
        if look.last < self._latest.last or look.next < self._latest.next:
            self.seq, self.events, self._first, self._until = 0, 0, None, 0
        self._latest = look
        if self._first is None:
            self._first = look
        elif not self._until:
            self._until = look.next
        elif look.oldest >= self._until:
            self.seq, self.events = self._first.last, self._first.events
            self._first, self._until = look, 0
        return self.seq
