"""What the leader concludes from watching: that a worker is dead, that an attempt is long over, what can be run.

Only what the leader saw itself, on its own monotonic clock, counts; no clock of another machine enters.
"""

from collections.abc import Iterable, Mapping
from uuid import UUID

UNABLE_SECONDS = 60.0  # without a capable worker for so long, a gated task gives its permit back


class DeathWatch:
    """Workers whose beat stood still for a whole lease, without a gap in the watching."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[UUID, tuple[int, float]] = {}
        self._last: float | None = None

    def failed(self) -> None:
        """A scan failed: nobody knows what was missed, so every worker gets a full lease of grace."""
        self._last = None

    def step(self, started: float, ended: float, beats: Mapping[UUID, int]) -> list[tuple[UUID, int]]:
        """Take what a scan between two moments read; return (worker, beat_seq) of those that are dead.

        A beat was seen at the latest moment, and is old since the earliest one: whatever is doubtful is life.
        """
        gap = self._last is None or ended - self._last > self._lease / 3
        self._last = ended
        dead = []
        seen: dict[UUID, tuple[int, float]] = {}
        for worker, beat in beats.items():
            before = self._seen.get(worker)
            if gap or before is None or before[0] != beat:
                seen[worker] = (beat, ended)
                continue
            seen[worker] = before
            if started - before[1] >= self._lease:
                dead.append((worker, beat))
        self._seen = seen
        return dead


class OverdueWatch:
    """Attempts beyond their time limit by the database's clock, until the leader's own clock agrees.

    A whole limit is waited again: the database's clock may have jumped, and this is only the backstop for a worker
    that measures, and kills, by itself.
    """

    def __init__(self) -> None:
        self._since: dict[tuple[UUID, int], float] = {}

    def step(self, now: float, overdue: Iterable[tuple[UUID, int, float]]) -> set[tuple[UUID, int]]:
        """Take (task, attempt, time limit) of what a scan found; return those that are over for certain."""
        over = set()
        since: dict[tuple[UUID, int], float] = {}
        for task, attempt, limit in overdue:
            first = self._since.get((task, attempt), now)
            since[task, attempt] = first
            if now - first >= limit:
                over.add((task, attempt))
        self._since = since
        return over


class Capability:
    """Which task types someone can run, or could a minute ago."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._last: dict[str, float] = {}

    def step(self, now: float, announced: Iterable[str]) -> None:
        """Take the types that live workers announce just now."""
        if self._since is None:
            self._since = now
        for kind in announced:
            self._last[kind] = now
        self._last = {kind: at for kind, at in self._last.items() if now - at < UNABLE_SECONDS}

    def recent(self) -> list[str]:
        """Return the types that somebody could run within the last minute."""
        return sorted(self._last)

    def settled(self, now: float) -> bool:
        """Tell whether the watching is long enough to say that nobody can run the others."""
        return self._since is not None and now - self._since >= UNABLE_SECONDS
