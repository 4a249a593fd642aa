"""What every tick of a term knows: the term, the feeder, and what was seen so far. Nothing outlives the term."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry
from core.domain.floors import Settled
from core.domain.gates import GateKey
from core.domain.lifecycle import ENDED, RUNNING, TaskStatus
from core.domain.watching import Capability, DeathWatch, OverdueWatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from core.clock import Clock
    from core.domain.task import Moved
    from core.feeder import Feeder
    from core.leadership import Term
    from core.pool import Tx
    from core.references import References
    from core.verbs.feeding import QueueSettings
    from core.waking import Waker

WALK_SECONDS = 10.0  # between two walks over all keys of the gate
BLIND_WALK_SECONDS = 1.0  # the same while Redis cannot bring the keys
SETTINGS_SECONDS = 1.0  # between two looks at how queues are set


@dataclass(slots=True)
class Desk:
    """Keys that may have room, and where the walk over all of them has come."""

    keys: dict[GateKey, None] = field(default_factory=dict)
    place: GateKey = queue.FIRST_KEY
    walk_due: float = 0.0
    walk_again: bool = False  # soon after the walk under way is over
    settings: dict[str, QueueSettings] = field(default_factory=dict)
    settings_due: float = 0.0

    def take(self, most: int) -> list[GateKey]:
        """Hand over the keys that were brought first, at most so many."""
        taken = list(islice(self.keys, most))
        for key in taken:
            del self.keys[key]
        return taken

    def learn(self, found: Iterable[QueueSettings]) -> None:
        """Walk over all keys at once when a queue was set otherwise: what waits there may go through now."""
        before, self.settings = self.settings, {one.name: one for one in found}
        if any(self.settings.get(name) != was for name, was in before.items()):
            self.walk_again = True
            if self.place == queue.FIRST_KEY:
                self.walk_due = 0.0

    def put_back(self, keys: Iterable[GateKey]) -> None:
        """Keep keys that were taken in vain, before those that were brought meanwhile."""
        self.keys = dict.fromkeys(keys) | self.keys


@dataclass(slots=True)
class Footing:
    """What is known for raising floors: how much had happened when it was done last, and when on the leader's clock."""

    settled: Settled = field(default_factory=Settled)
    events: int = 0
    at: float | None = None


@dataclass(slots=True)
class Context:
    """One term's state, handed to each tick."""

    term: Term
    refs: References
    feeder: Feeder
    clock: Clock
    deaths: DeathWatch
    waker: Waker
    overdue: OverdueWatch = field(default_factory=OverdueWatch)
    capable: Capability = field(default_factory=Capability)
    desk: Desk = field(default_factory=Desk)
    footing: Footing = field(default_factory=Footing)
    workers: Sequence[queue.WorkerRow] = ()
    announced: frozenset[str] = frozenset()
    idle_lists: dict[str, float] = field(default_factory=dict)
    partitions_due: float = 0.0
    nudges: dict[str, asyncio.Event] = field(default_factory=dict)

    def leading(self) -> AbstractAsyncContextManager[Tx]:
        """Open a leader's transaction. Raises Deposed."""
        return self.term.transaction()

    def nudge(self, tick: str) -> None:
        """Let a tick come round at once."""
        if tick in self.nudges:
            self.nudges[tick].set()

    def moved(self, rows: Sequence[Moved]) -> int:
        """After a commit of the leader's own: new QUEUED rows to the feeder, freed keys to the gate; how many."""
        again = {(row.queue, row.type, row.priority) for row in rows if row.status is TaskStatus.QUEUED}
        if again:
            self.feeder.again(again)
            self.nudge("feed")
        self.free(
            GateKey(queue=row.queue, owner_id=row.owner_id, key=row.concurrency_key)
            for row in rows
            if row.gated and row.status is not TaskStatus.QUEUED and row.status not in RUNNING
        )
        for row in rows:
            if row.status in ENDED:
                telemetry.metrics().tasks_total.labels(row.queue, row.type, row.status.value).inc()
        return len(rows)

    def free(self, keys: Iterable[GateKey]) -> None:
        """Bring keys to the gate."""
        before = len(self.desk.keys)
        self.desk.keys.update(dict.fromkeys(keys))
        if len(self.desk.keys) > before:
            self.nudge("gates")
