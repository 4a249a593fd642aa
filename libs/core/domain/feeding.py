"""Feeding: which QUEUED rows to read, and which of them to hint where. `step(now, seen) -> decisions`, no IO.

The order is strict priority, then seq. The feeder (core/feeder.py) reads what `asks` wants, gives it to `take`,
sends the hints, and only then says `sent`.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from core.domain.cursors import Cursor, Route
from core.domain.doors import Door
from core.domain.ordering import URGENCY, PriorityType, list_key
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

    def note(self, door: Door | None, ask: Ask) -> int:
        """Take over what went through a door; returns how far its route has come."""
        if door is None or door.place is None:
            return ask.seq
        self.places[ask.route] = door.place
        self.seqs[ask.route] = door.seqs
        self.number += len(door.seqs)
        return door.place


class Feeding:
    """The feeder's mind: cursors, routes and what the lanes want."""

    def __init__(self) -> None:
        self.cursors: dict[Route, Cursor] = {}
        self.options: dict[tuple[str, str], tuple[str, ...]] = {}  # (queue, type) -> digests that can run it
        self.lanes: tuple[LaneFace, ...] = ()
        self.lists: list[str] = []
        self.wants: Mapping[LaneOf, int] = {}
        self.waiting: Mapping[str, int] = {}
        self._floors: Mapping[Route, int] = {}
        self._turns = 0

    def lay(self, now: float, lanes: Iterable[LaneFace], paused: frozenset[str]) -> None:
        """Take who can run what: routes appear from the beginning, those that nobody serves any more go."""
        before, self.lanes = self.lanes, tuple(lanes)
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
                    floor = self._floors.get((*key, priority), 0)
                    self.cursors[*key, priority] = Cursor(now, self._turns, floor)
                elif gone:  # its references lie in a list that nobody reads any more
                    cursor.reset(now)
        self.options = options
        self._doubt(now, before)
        self.lists = [list_key(queue, priority, name) for queue, name in sorted(places) for priority in URGENCY]

    def _doubt(self, now: float, before: Iterable[LaneFace]) -> None:
        """Have what lanes that are gone may have held looked for."""
        here = {face.lane for face in self.lanes}
        lost = [face for face in before if face.lane not in here]
        for route in {(queue, kind) for face in lost for queue in face.queues for kind in face.types}:
            for priority in URGENCY:
                if (cursor := self.cursors.get((*route, priority))) is not None:
                    cursor.doubt(now)

    def stand(self, floors: Mapping[Route, int]) -> None:
        """Take all floors there are: from where on there can be rows."""
        self._floors = floors
        for route, cursor in self.cursors.items():
            cursor.stand(floors.get(route, 0))

    def reset(self, now: float) -> None:
        """Start over: Redis was emptied."""
        for cursor in self.cursors.values():
            cursor.reset(now)

    def see(self, wants: Mapping[LaneOf, int], waiting: Mapping[str, int]) -> None:
        """Take what the lanes want and what waits in the lists."""
        self.wants, self.waiting = wants, waiting

    def active(self) -> set[str]:
        """Return the queues that have work as far as is known."""
        busy = {route[0] for route, cursor in self.cursors.items() if cursor.hot}
        return busy | {queue for queue, digest in self._places() if self._waits(queue, digest)}

    def _places(self) -> set[Place]:
        return {(queue, face.digest) for face in self.lanes for queue in face.queues}

    def _waits(self, queue: str, digest: str) -> int:
        return sum(self.waiting.get(list_key(queue, priority, digest), 0) for priority in URGENCY)

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
        taken.hints = {key: ids for key, ids in taken.hints.items() if ids}
        return taken

    def _take(
        self, now: float, asks: Sequence[Ask], found: Rows, *, room: Rooms, below: float, held: set[str], taken: Taken
    ) -> set[str]:
        """Take from the routes of one queue and priority; return the digests that it still has rows for."""
        cut = {ask.route: found[ask.route][-1][0] for ask in asks if len(found.get(ask.route, ())) >= ask.limit}
        # Beyond the last row of a reading that was cut short, nobody knows what comes first.
        horizon = min(min(cut.values(), default=math.inf), below)
        doors = {ask.route: self._door(now, ask.route, room, held, taken) for ask in asks if found.get(ask.route)}
        merged = [(seq, task, door) for route, door in doors.items() for seq, task in found[route]]
        if len(doors) > 1:
            merged.sort(key=itemgetter(0))
        shut = 0
        for seq, task, door in merged:
            if seq > horizon or shut == len(doors):
                break
            if not door.shut and not door.passes(seq, task):
                shut += 1
        more: set[str] = set()
        for ask in asks:
            place = taken.note(doors.get(ask.route), ask)
            rows = found.get(ask.route, ())
            next_one = bisect_right(rows, place, key=itemgetter(0))
            left = next_one < len(rows) and rows[next_one][0] <= below
            taken.hot[ask.route] = left or (ask.route in cut and cut[ask.route] <= below)
            if taken.hot[ask.route] and not (ask.route in doors and doors[ask.route].shut):
                more.update(self.options[ask.route[:2]])
        return more

    def _door(self, now: float, route: Route, room: Rooms, held: set[str], taken: Taken) -> Door:
        digests = [digest for digest in self.options[route[:2]] if digest not in held]
        old = self.cursors[route].stale(now, hungry=self.hungry(route))
        return Door(route, digests, cursor=self.cursors[route], room=room, hints=taken.hints, old=old)

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
