"""Feeding: which QUEUED rows to read, and which of them to hint where. `step(now, seen) -> decisions`, no IO.

The order is strict priority, then seq. The feeder (core/feeder.py) reads what `asks` wants, gives it to `take`,
sends the hints, and only then says `sent`.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from core.domain.cursors import Cursor, Route
from core.domain.ordering import URGENCY, PriorityType, stream_key
from core.domain.windows import LaneFace, LaneOf, Place, Rooms, rooms

MOST_ROWS = 4000  # of one cursor in one reading


class Ask(NamedTuple):
    """Read up to `limit` rows of a route beyond `seq`."""

    route: Route
    seq: int
    limit: int


Row = tuple[int, UUID]  # seq, id
Rows = Mapping[Route, Sequence[Row]]


@dataclass(slots=True)
class Taken:
    """What to hint, and how far the cursors will have come when it has arrived."""

    hints: dict[str, list[bytes]] = field(default_factory=dict)
    seqs: dict[Route, list[int]] = field(default_factory=dict)
    places: dict[Route, int] = field(default_factory=dict)
    hot: dict[Route, bool] = field(default_factory=dict)
    number: int = 0


class Feeding:
    """The feeder's mind: cursors, routes and what the lanes want."""

    def __init__(self) -> None:
        self.cursors: dict[Route, Cursor] = {}
        self.options: dict[tuple[str, str], tuple[str, ...]] = {}  # (queue, type) -> digests that can run it
        self.lanes: tuple[LaneFace, ...] = ()
        self.streams: list[str] = []
        self.wants: Mapping[LaneOf, int] = {}
        self.waiting: Mapping[str, int] = {}
        self._turns = 0

    def lay(self, now: float, lanes: Iterable[LaneFace], paused: frozenset[str]) -> None:
        """Take who can run what: routes appear from the beginning, those that nobody serves any more go."""
        self.lanes = tuple(lanes)
        able: dict[tuple[str, str], set[str]] = {}
        places: set[Place] = set()
        for face in self.lanes:
            for queue in face.queues - paused:
                places.add((queue, face.digest))
                for kind in face.types:
                    able.setdefault((queue, kind), set()).add(face.digest)
        options = {key: tuple(sorted(digests)) for key, digests in able.items()}
        for key in self.options.keys() - options.keys():
            for priority in URGENCY:
                self.cursors.pop((*key, priority), None)
        for key, digests in options.items():
            gone = not set(self.options.get(key, ())) <= set(digests)
            for priority in URGENCY:
                cursor = self.cursors.get((*key, priority))
                if cursor is None:
                    self._turns += 1  # so that the cursors do not all start over at the same time
                    self.cursors[*key, priority] = Cursor(now, self._turns)
                elif gone:  # its references lie in a stream that nobody reads any more
                    cursor.reset(now)
        self.options = options
        self.streams = [stream_key(queue, priority, name) for queue, name in sorted(places) for priority in URGENCY]

    def reset(self, now: float) -> None:
        """Start over: Redis was emptied."""
        for cursor in self.cursors.values():
            cursor.reset(now)

    def see(self, wants: Mapping[LaneOf, int], waiting: Mapping[str, int]) -> None:
        """Take what the lanes want and what waits in the streams."""
        self.wants, self.waiting = wants, waiting

    def active(self) -> set[str]:
        """Return the queues that have work as far as is known."""
        busy = {route[0] for route, cursor in self.cursors.items() if cursor.hot}
        return busy | {queue for queue, digest in self._places() if self._waits(queue, digest)}

    def _places(self) -> set[Place]:
        return {(queue, face.digest) for face in self.lanes for queue in face.queues}

    def _waits(self, queue: str, digest: str) -> int:
        return sum(self.waiting.get(stream_key(queue, priority, digest), 0) for priority in URGENCY)

    def rooms(self) -> Rooms:
        """Return the room there is for more references."""
        return rooms(self.lanes, self.wants, self.active(), self.waiting)

    def hungry(self, route: Route) -> bool:
        """Tell whether lanes that can run it want more than what waits for them."""
        queue, kind, _ = route
        for digest in self.options.get((queue, kind), ()):
            want = sum(self.wants.get(f.lane, 0) for f in self.lanes if f.digest == digest and queue in f.queues)
            if want > self._waits(queue, digest):
                return True
        return False

    @property
    def backlog(self) -> bool:
        """Whether more rows are believed to be waiting than were hinted."""
        return any(cursor.hot for cursor in self.cursors.values())

    def asks(self, room: Rooms, cold: Collection[str] | None) -> list[Ask]:
        """Return what to read: hot cursors that have room, and the others of the `cold` queues (None: of all)."""
        wanted: dict[tuple[str, PriorityType], list[tuple[Route, int]]] = {}
        for route, cursor in self.cursors.items():
            if cursor.hot or cold is None or route[0] in cold:
                queue, kind, priority = route
                most = max(room.of(queue, digest, priority) for digest in self.options[queue, kind])
                if most > 0:
                    wanted.setdefault((queue, priority), []).append((route, most))
        asks = []
        for group in wanted.values():
            hot = sum(1 for route, _ in group if self.cursors[route].hot)
            for route, most in group:
                sharers = max(hot + (not self.cursors[route].hot), 1)
                limit = most if sharers == 1 else math.ceil(2 * most / sharers) + 1
                limit += self.cursors[route].passed_over()
                asks.append(Ask(route, self.cursors[route].seq, min(limit, MOST_ROWS)))
        return asks

    def take(self, now: float, asked: Sequence[Ask], found: Rows, room: Rooms, ceilings: Mapping[str, int]) -> Taken:
        """Choose, from what was read, what is hinted where; a queue's rows above its ceiling are left alone."""
        taken = Taken()
        groups: dict[str, dict[PriorityType, list[Ask]]] = {}
        for ask in asked:
            groups.setdefault(ask.route[0], {}).setdefault(ask.route[2], []).append(ask)
        for queue, by_priority in groups.items():
            held: set[str] = set()  # digests whose more urgent rows are not all read yet
            for priority in URGENCY:
                asks = by_priority.get(priority)
                if asks:
                    below = ceilings.get(queue, math.inf)
                    held |= self._take(now, asks, found, room=room, below=below, held=held, taken=taken)
        return taken

    def _take(
        self, now: float, asks: Sequence[Ask], found: Rows, *, room: Rooms, below: float, held: set[str], taken: Taken
    ) -> set[str]:
        """Take from the routes of one queue and priority; return the digests that it still has rows for."""
        cut = {ask.route: found[ask.route][-1][0] for ask in asks if len(found.get(ask.route, ())) >= ask.limit}
        # Beyond the last row of a reading that was cut short, nobody knows what comes first.
        horizon = min(min(cut.values(), default=math.inf), below)
        merged = sorted(
            ((seq, task, ask.route) for ask in asks for seq, task in found.get(ask.route, ())), key=itemgetter(0)
        )
        blocked: set[Route] = set()
        hungry = {ask.route: self.hungry(ask.route) for ask in asks if found.get(ask.route)}
        for seq, task, route in merged:
            if seq > horizon:
                break
            if route in blocked:
                continue
            if not self.cursors[route].good(seq, now, hungry=hungry[route]):
                digest = self._place(route, room, held)
                if digest is None:
                    blocked.add(route)
                    if len(blocked) == len(asks):
                        break
                    continue
                room.take(route[0], digest, route[2])
                taken.hints.setdefault(stream_key(route[0], route[2], digest), []).append(task.bytes)
                taken.seqs.setdefault(route, []).append(seq)
                taken.number += 1
            taken.places[route] = seq
        more: set[str] = set()
        for ask in asks:
            rows = [seq for seq, _ in found.get(ask.route, ()) if seq <= below]
            left = bool(rows) and rows[-1] > taken.places.get(ask.route, ask.seq)
            taken.hot[ask.route] = left or (ask.route in cut and cut[ask.route] <= below)
            if taken.hot[ask.route] and ask.route not in blocked:
                more.update(self.options[ask.route[:2]])
        return more

    def _place(self, route: Route, room: Rooms, held: set[str]) -> str | None:
        queue, kind, priority = route
        best, most = None, 0
        for digest in self.options[queue, kind]:
            if digest not in held and (free := room.of(queue, digest, priority)) > most:
                best, most = digest, free
        return best

    def sent(self, now: float, taken: Taken) -> bool:
        """The hints have arrived: move the cursors. Tells whether one moved."""
        moved = False
        for route, hot in taken.hot.items():
            if (cursor := self.cursors.get(route)) is not None:
                place = taken.places.get(route, 0)
                moved = moved or place > cursor.seq
                cursor.sent(now, taken.seqs.get(route, ()), place)
                cursor.hot = hot
        return moved
