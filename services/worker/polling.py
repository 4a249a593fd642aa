"""Polling PostgreSQL: when, and from where on. For a lane without references, and now and then for every other.

In a long backlog a poll goes on where the last one ended. Nothing is lost by that: a row that becomes QUEUED gets a
place at the end. But rows commit out of order, so from time to time all is looked at from the beginning. That visits
every row that was claimed since somebody's oldest snapshot, and may take long; so it takes a fortieth of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import clock
from core import queue_manager as queue

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.domain.cursors import Route
    from core.pool import Database
    from core.verbs.running import Candidate

SHORTEST: Final = 0.2
LONGEST: Final = 1.0
_REFUSED_SECONDS: Final = 5.0  # how long a poll passes over what a claim just refused
_MOST_ASKED: Final = 2000
_WHOLE_SECONDS: Final = 2.0
_WHOLE_SHARE: Final = 40.0


class Polling:
    """One lane's polls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.pause = SHORTEST  # how long to wait before the next one
        self._last = 0.0
        self._refused: dict[UUID, float] = {}
        self._marks: dict[Route, int] = {}
        self._whole_due = 0.0

    def due(self, seconds: float) -> bool:
        """Whether the last one is so long ago."""
        return clock.monotonic() - self._last >= seconds

    def hurry(self) -> None:
        """Poll at once, and soon again."""
        self._last, self.pause = 0.0, SHORTEST

    def pass_over(self, task: UUID) -> None:
        """Leave a task out for a while: a claim refused it."""
        self._refused[task] = clock.monotonic() + _REFUSED_SECONDS

    async def look(self, queues: Sequence[str], types: Sequence[str], free: int) -> tuple[list[Candidate], bool]:
        """Return up to `free` candidates, and whether there may be more. Raises Unavailable."""
        self._last = now = clock.monotonic()
        self._refused = {one: until for one, until in self._refused.items() if until > now}
        if now >= self._whole_due:
            self._marks = {}
        whole = not self._marks
        asked = min(free + len(self._refused), _MOST_ASKED)
        async with self._database.connection() as tx:
            found = await queue.poll(tx, queues=queues, types=types, limit=asked, beyond=self._marks)
        if whole:
            after = clock.monotonic()
            self._whole_due = after + max(_WHOLE_SECONDS, _WHOLE_SHARE * (after - now))
        return [row for row in found if row.id not in self._refused][:free], len(found) == asked

    def tried(self, rows: Sequence[Candidate], claimed: int, *, more: bool) -> None:
        """Note what a look led to: the next one goes on behind these rows; after nothing it is later."""
        self._marks = self._marks | {(row.queue, row.type, row.priority): row.seq for row in rows} if more else {}
        if claimed or more:  # there may be more, or another worker was quicker
            self.pause, self._last = SHORTEST, 0.0 if claimed else self._last
        else:
            self.pause = min(self.pause * 1.5, LONGEST)
