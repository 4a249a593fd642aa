"""Doors: where the rows of one route go in one round, and how many still may.

Apart from the order of things (feeding.py) because it is passed for every single row: it looks nothing up twice.
"""

from collections.abc import Iterable
from uuid import UUID

from core.domain.cursors import Cursor, Route
from core.domain.ordering import list_key
from core.domain.windows import Rooms

_Way = tuple[list[int], list[bytes]]  # room of the digest by priority, the ids that its list gets


class Door:
    """One route in one round."""

    __slots__ = ("_hinted", "_old", "_rank", "_room", "_ways", "place", "seqs", "shut")

    def __init__(
        self,
        route: Route,
        digests: Iterable[str],
        *,
        cursor: Cursor,
        room: Rooms,
        hints: dict[str, list[bytes]],
        old: float,
    ) -> None:
        """Take where ids go, which other doors share, and the time before which a hint is worth nothing any more."""
        queue, _, priority = route
        self.place: int | None = None  # the last row that was looked at and not left behind
        self.seqs: list[int] = []
        self.shut = False
        self._hinted = cursor.hinted
        self._old = old
        self._rank = room.rank(priority)
        self._room = room
        self._ways: list[_Way] = [
            (room.row(queue, digest), hints.setdefault(list_key(queue, priority, digest), [])) for digest in digests
        ]

    def passes(self, seq: int, task: UUID) -> bool:
        """Let a row through: hinted already, or hinted now. Once there is no room for one, the door is shut."""
        at = self._hinted.get(seq)
        if at is None or at <= self._old:
            if not self._give(task):
                self.shut = True
                return False
            self.seqs.append(seq)
        self.place = seq
        return True

    def _give(self, task: UUID) -> bool:
        rank, best, most = self._rank, None, 0
        for way in self._ways:
            if way[0][rank] > most:
                best, most = way, way[0][rank]
        if best is None or self._room.budget <= 0:
            return False
        row = best[0]
        for lower in range(rank, len(row)):
            row[lower] -= 1
        self._room.budget -= 1
        best[1].append(task.bytes)
        return True
