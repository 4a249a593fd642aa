"""Credits: references that the API may add by itself, while a queue has nothing waiting.

While credits are out for a queue the feeder reads it one second behind, because younger rows are hinted already by
those who wrote them. A submit that lacks credit names its queue, and then the feeder reads without delay.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from core.domain.feeding import Feeding
from core.domain.ordering import PriorityType
from core.domain.windows import Rooms

BEHIND_SECONDS = 1.0
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the API may hint by itself for a queue: where each type goes, and how many for each digest."""

    routes: dict[str, str] = field(default_factory=dict)
    high: dict[str, int] = field(default_factory=dict)
    low: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Which queues have credits out, and how far the sequence had come when."""

    def __init__(self) -> None:
        self.out: set[str] = set()  # queues that are read one second behind
        self._laid: set[str] = set()  # queues for which an offer lies in Redis
        self._refused: frozenset[str] = frozenset()
        self._samples: deque[tuple[float, int]] = deque()

    def refuse(self, queues: Iterable[str]) -> None:
        """Paused and capped queues get no credits."""
        self._refused = frozenset(queues)

    def forget(self) -> None:
        """Redis was emptied: nothing is out."""
        self.out.clear()
        self._laid.clear()

    def short(self, queues: Iterable[str]) -> None:
        """Submits lacked credit there: read without delay until there is an offer again."""
        self.out.difference_update(queues)

    def due(self, now: float) -> bool:
        """Tell whether the sequence should be looked at."""
        return not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS

    def sample(self, now: float, seq: int) -> None:
        """Remember how far the sequence has come."""
        self._samples.append((now, seq))
        while len(self._samples) > 1 and now - self._samples[1][0] >= BEHIND_SECONDS:
            self._samples.popleft()

    def ceilings(self) -> dict[str, int]:
        """Return, for queues with credits out, the highest seq to be hinted: what was given out a second ago."""
        if not self._samples:
            return dict.fromkeys(self.out, 0)
        return dict.fromkeys(self.out, self._samples[0][1])

    def offers(self, feeding: Feeding, room: Rooms, queues: Collection[str] | None) -> dict[str, Offer]:
        """Return what to lay out for `queues` that were just read (None: all); an empty offer takes it back."""
        kinds: dict[str, list[str]] = {}
        for queue, kind in feeding.options:
            kinds.setdefault(queue, []).append(kind)
        hot = {route[0] for route, cursor in feeding.cursors.items() if cursor.hot}
        offers: dict[str, Offer] = {}
        for queue in self._laid - kinds.keys():
            offers[queue] = Offer()
        for queue, types in kinds.items():
            if queues is not None and queue not in queues and queue not in hot:
                continue
            offer = Offer() if queue in hot or queue in self._refused else _offer(feeding, room, queue, types)
            if offer.routes or queue in self._laid:
                offers[queue] = offer
        given = {queue for queue, offer in offers.items() if offer.routes}
        self.out = (self.out - offers.keys()) | given
        self._laid = (self._laid - offers.keys()) | given
        return offers


def _offer(feeding: Feeding, room: Rooms, queue: str, types: Iterable[str]) -> Offer:
    offer = Offer()
    for kind in types:
        best = max(feeding.options[queue, kind], key=lambda digest: room.of(queue, digest, PriorityType.NORMAL))
        if number := room.of(queue, best, PriorityType.NORMAL):
            offer.routes[kind] = best
            offer.low[best] = number
            offer.high[best] = room.of(queue, best, PriorityType.HIGH)
    return offer
