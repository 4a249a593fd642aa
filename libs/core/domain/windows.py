"""Windows: how many references may wait in a list.

Lists stay shallow, so that pause, cancel, priority and limits still reach whatever is beyond them.
All windows together hold at most MOST_PER_SLOT references for each free slot, and one for each queue that has work.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from core.domain.ordering import URGENCY, Lane, PriorityType, list_key

MOST_PER_SLOT = 4
# Each priority has a window of its own, so that a full one of LOW tasks is not in the way of a HIGH one.
FACTOR = MOST_PER_SLOT / len(URGENCY)
HIGH_MOST = 2000  # in one list of HIGH tasks: they live where logins and rate limits do
FRESH_SECONDS = 2.5  # a lane reads at least once a second; what it wanted longer ago is no want

_RANK = {priority: rank for rank, priority in enumerate(URGENCY)}
LaneOf = tuple[UUID, Lane]
Place = tuple[str, str]  # queue, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneFace:
    """One lane of a live worker: what it reads, and what it can run."""

    lane: LaneOf
    queues: frozenset[str]
    types: frozenset[str]
    digest: str


class Wants:
    """What lanes want, as long as their word is fresh: a lane that is stuck or cut off wants nothing."""

    def __init__(self) -> None:
        self._said: dict[LaneOf, tuple[int, float]] = {}

    def step(self, now: float, said: Mapping[LaneOf, tuple[int, int]]) -> dict[LaneOf, int]:
        """Take (number, turn) of each lane; a turn that does not change is an old word."""
        heard: dict[LaneOf, tuple[int, float]] = {}
        wants: dict[LaneOf, int] = {}
        for lane, (number, turn) in said.items():
            before = self._said.get(lane)
            heard[lane] = before if before is not None and before[0] == turn else (turn, now)
            wants[lane] = max(number, 0) if now - heard[lane][1] <= FRESH_SECONDS else 0
        self._said = heard
        return wants


class Rooms:
    """How many more references each place may take; `take` uses one up."""

    def __init__(self, targets: Mapping[Place, int], waiting: Mapping[str, int], budget: int) -> None:
        self.budget = budget
        self._targets = targets
        self._waiting = waiting
        self._left: dict[Place, list[int]] = {}

    def of(self, queue: str, digest: str, priority: PriorityType) -> int:
        """Return the room for one priority: what is as urgent or more so uses it up, what is less so does not."""
        return max(min(self.row(queue, digest)[_RANK[priority]], self.budget), 0)

    def take(self, queue: str, digest: str, priority: PriorityType) -> None:
        """Use one up."""
        row = self.row(queue, digest)
        for rank in range(_RANK[priority], len(row)):
            row[rank] -= 1
        self.budget -= 1

    @staticmethod
    def rank(priority: PriorityType) -> int:
        """Return the place of a priority in a `row`."""
        return _RANK[priority]

    def row(self, queue: str, digest: str) -> list[int]:
        """Return the room for each priority, most urgent first, as the list that is counted down."""
        row = self._left.get((queue, digest))
        if row is None:
            target = self._targets.get((queue, digest), 0)
            waiting = [self._waiting.get(list_key(queue, priority, digest), 0) for priority in URGENCY]
            row = self._left[queue, digest] = [target - sum(waiting[: rank + 1]) for rank in range(len(URGENCY))]
            row[0] = min(row[0], HIGH_MOST - waiting[0])
        return row


def targets(lanes: Iterable[LaneFace], wants: Mapping[LaneOf, int], active: Collection[str]) -> dict[Place, int]:
    """Share what each lane wants among the queues it reads that have work; at least one where anybody wants any.

    A queue without known work gets the share it would have with some, so that its first tasks find room.
    """
    shares: dict[Place, float] = {}
    for face in lanes:
        want = wants.get(face.lane, 0)
        if want <= 0:
            continue
        busy = sum(1 for queue in face.queues if queue in active)
        for queue in face.queues:
            sharers = busy if queue in active else busy + 1
            place = (queue, face.digest)
            shares[place] = shares.get(place, 0.0) + FACTOR * want / sharers
    return {place: max(1, int(share)) for place, share in shares.items()}


def rooms(
    lanes: Iterable[LaneFace], wants: Mapping[LaneOf, int], active: Collection[str], waiting: Mapping[str, int]
) -> Rooms:
    """Return the room there is, given what waits in the lists already."""
    free = sum(wants.get(face.lane, 0) for face in lanes)
    budget = MOST_PER_SLOT * free + (len(active) if free else 0) - sum(waiting.values())
    return Rooms(targets(lanes, wants, active), waiting, max(budget, 0))
