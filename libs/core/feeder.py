"""The feeder: reads QUEUED rows in order and hints them to workers; it writes no row.

What is hinted, and when, is decided in core/domain/feeding.py; here it is read, sent, and remembered as sent. The
leader's loop calls `round`; `pause` and `spacing` say when.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from core import clock as clocks
from core import queue_manager as queue
from core import telemetry
from core.domain.credits import Ledger
from core.domain.cursors import Route
from core.domain.feeding import Ask, Feeding
from core.domain.ordering import URGENCY, Lane, digest, list_key
from core.domain.windows import LaneFace, LaneOf, Rooms, Wants
from core.pool import Database
from core.redis_client import RedisDown
from core.steering import Snapshot, Steering
from core.verbs import feeding as verbs

LAY_SECONDS = 1.0  # how old the list of workers and queues may be
COLD_SECONDS = 1.0  # how often queues without known work are looked at when nobody wakes the leader
BEHIND_ROWS = 2000  # of one cursor in one look behind
LEAST_PAUSE, MOST_PAUSE, IDLE_PAUSE = 0.005, 0.1, 1.0
FLOW_PAUSE = 0.025  # while references flow: a window holds more than that, and a lane that runs dry wakes the leader
log = telemetry.get_logger("feeder")


class Feeder:
    """One term's feeder. All cursors begin at their floors, because a new leader knows nothing."""

    def __init__(self, db: Database, refs: Steering, *, epoch: int, clock: clocks.Clock = clocks.system) -> None:
        self.feeding = Feeding()
        self.ledger = Ledger()
        self.strangers: set[LaneOf] = set()  # lanes that want references and that no live worker has
        self._db, self._refs, self._clock = db, refs, clock
        self._generation = str(epoch)
        self._wants = Wants()
        self._laid: float | None = None
        self._stands = False
        self._looked: float | None = None
        self._pause = LEAST_PAUSE
        self._woken: set[str] = set()
        self._moved = False  # a cursor moved in this round, if only over rows that were hinted already
        self._began, self._took = float("-inf"), 0.0

    def again(self, routes: Iterable[Route]) -> None:
        """Somebody made rows QUEUED there: look, behind the cursor too, at the next round."""
        for route in routes:
            if (cursor := self.feeding.cursors.get(route)) is not None:
                cursor.look()
                self.ledger.short(route[:1])  # nobody else hints these rows: not a second behind

    def stand(self, floors: Mapping[Route, int]) -> None:
        """Look from these floors on; what has none, from the beginning."""
        self.feeding.stand(floors)
        self._stands = True

    def relay(self) -> None:
        """Workers or queues changed: read them at the next round."""
        self._laid = None

    def readable(self) -> set[str]:
        """Return the lists that some live lane reads, of paused queues as well."""
        return {
            list_key(name, priority, face.digest)
            for face in self.feeding.lanes
            for name in face.queues
            for priority in URGENCY
        }

    def woken(self, why: Iterable[str]) -> None:
        """Somebody woke the leader; a name is that of a queue whose submits lacked credit."""
        self._woken.update(why)

    def pause(self) -> float:
        """Return how long the next round can wait when nobody wakes the leader."""
        return self._pause

    def spacing(self) -> float:
        """Return how long it must wait in any case: rounds for nothing take half of a core at most."""
        spent = self._clock.monotonic() - self._began
        least = LEAST_PAUSE / 2 if self._moved else max(min(2 * self._took, MOST_PAUSE), LEAST_PAUSE / 2)
        return max(least - spent, 0.0)

    async def round(self) -> int:
        """Look once, and hint what there is room for; returns how many. Raises Unavailable."""
        self._began = now = self._clock.monotonic()
        self._moved = False
        try:
            number = await self._round(now)
        except RedisDown as down:
            # Workers poll meanwhile. What was hinted may be lost, and is hinted again in time.
            log.debug("no references just now", error=str(down))
            self._pause = IDLE_PAUSE
            return 0
        if number or self._moved:
            self._pause = FLOW_PAUSE
        elif self.feeding.backlog:
            self._pause = min(self._pause * 2, MOST_PAUSE)
        else:
            self._pause = IDLE_PAUSE
        self._took = self._clock.monotonic() - now
        return number

    async def _round(self, now: float) -> int:
        if self._laid is None or now - self._laid >= LAY_SECONDS:
            await self._lay(now)
        feeding = self.feeding
        seen = await self._refs.snapshot(feeding.lists, self._generation, backlog=feeding.backlog)
        self._see(now, seen)
        wakes = (seen.wakes | self._woken) - {""}
        self._woken = set()
        self.ledger.short(wakes)
        cold: Collection[str] | None = wakes
        if self._looked is None or now - self._looked >= COLD_SECONDS:
            cold, self._looked = None, now
        return await self._feed(now, cold)

    async def _lay(self, now: float) -> None:
        async with self._db.connection() as tx:
            workers = await queue.live_workers(tx)
            settings = await verbs.queue_settings(tx)
            if not self._stands:
                self.stand(await queue.floors(tx))
        self.feeding.lay(now, _faces(workers), frozenset(s.name for s in settings if s.paused))
        self.ledger.refuse(s.name for s in settings if s.paused or s.max_concurrent)
        self._laid = now

    def _see(self, now: float, seen: Snapshot) -> None:
        feeding = self.feeding
        if seen.lost:
            feeding.reset(now)
            self.ledger.forget()
            telemetry.metrics().redis_rebuilds_total.inc()
        self.again(seen.again)
        known = {face.lane for face in feeding.lanes}
        self.strangers = {lane for lane in seen.wants if lane not in known}
        wants = self._wants.step(now, seen.wants)
        feeding.see({lane: want for lane, want in wants.items() if lane in known}, seen.waiting)

    async def _feed(self, now: float, cold: Collection[str] | None) -> int:
        """Read, hint, and only then move the cursors: what did not arrive is read again."""
        feeding = self.feeding
        await self._look_behind(now)
        if self.ledger.due(now):
            async with self._db.connection() as tx:
                self.ledger.sample(now, await verbs.last_seq(tx))
        room = feeding.rooms()
        asks = feeding.asks(room, cold)
        number = 0
        if asks:
            async with self._db.connection() as tx:
                found = await verbs.read_ahead(tx, asks)
            taken = feeding.take(now, asks, found, room, self.ledger.ceilings())
            if taken.number:
                await self._refs.hint(taken.hints)
            self._moved = feeding.sent(now, taken)
            number = taken.number
        if number or cold is None or cold:
            await self._offer(room, cold)
        return number

    async def _look_behind(self, now: float) -> None:
        cursors = self.feeding.cursors
        asks = [
            Ask(route, place, BEHIND_ROWS)
            for route, cursor in cursors.items()
            if (place := cursor.behind(now)) is not None
        ]
        if not asks:
            return
        async with self._db.connection() as tx:
            found = await verbs.read_ahead(tx, asks)
        for ask in asks:
            seqs = [seq for seq, _ in found[ask.route]]
            cursors[ask.route].found(now, seqs, limit=ask.limit, hungry=self.feeding.hungry(ask.route))

    async def _offer(self, room: Rooms, cold: Collection[str] | None) -> None:
        if offers := self.ledger.offers(self.feeding, room, cold):
            await self._refs.offer_credits(offers)


def _faces(workers: Sequence[queue.WorkerRow]) -> list[LaneFace]:
    """Return the lanes of the workers that take new tasks."""
    faces = []
    for worker in workers:
        if worker.state != "alive":
            continue
        for lane, types in ((Lane.SYNC, worker.sync_types), (Lane.ASYNC, worker.async_types)):
            if types:
                faces.append(
                    LaneFace(
                        lane=(worker.id, lane),
                        queues=frozenset(worker.queues),
                        types=frozenset(types),
                        digest=digest(types),
                    )
                )
    return faces
