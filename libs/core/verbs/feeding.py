"""What the feeder reads: rows in order, settings of queues, and how far the sequence has come."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.domain.cursors import Route
from core.domain.feeding import Ask, Row
from core.domain.ordering import PriorityType
from core.pool import Tx
from core.sql import statement


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """A queue as its administrator set it; a cap of 0 is none."""

    name: str
    paused: bool
    max_concurrent: int
    max_per_key: int


async def queue_settings(tx: Tx) -> list[QueueSettings]:
    """Return the settings of every queue; cheap, unlike `depth`."""
    found = await tx.fetch(statement("queue_settings"))
    return [QueueSettings(row["name"], row["paused"], row["max_concurrent"], row["max_per_key"]) for row in found]


async def last_seq(tx: Tx) -> int:
    """Return the last `seq` given out: a row that gets one later gets a higher one, whenever it commits."""
    return int(await tx.fetchval("select last_value from task_seq"))


async def read_ahead(tx: Tx, asks: Sequence[Ask]) -> dict[Route, list[Row]]:
    """Read QUEUED rows beyond each ask's `seq`, in the order of `seq`: `feed` without a value for each row."""
    found = await tx.fetch(
        statement("feed"),
        [ask.route[0] for ask in asks],
        [ask.route[1] for ask in asks],
        [ask.route[2].value for ask in asks],
        [ask.seq for ask in asks],
        [ask.limit for ask in asks],
    )
    routes: dict[tuple[str, str, str], list[Row]] = {(*ask.route[:2], ask.route[2].value): [] for ask in asks}
    for task, seq, queue, kind, priority in found:
        routes[queue, kind, priority].append((seq, task))
    return {(queue, kind, PriorityType(priority)): rows for (queue, kind, priority), rows in routes.items()}
