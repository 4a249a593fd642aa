"""Queues: settings and depth."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import NotFound
from core.pool import Tx
from core.sql import statement

COUNT_MOST = 10_000
REGATE_MOST = 10_000  # rows that one call brings under a new cap; the gate waits for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """A queue's settings and how many of its tasks wait, run and failed in the last hour; counting has a ceiling."""

    queue: str
    paused: bool
    max_concurrent: int
    max_per_key: int
    pending: int
    queued: int
    running: int
    failed: int
    oldest_queued_seconds: float | None


async def depth(tx: Tx, queues: Sequence[str] | None = None, *, most: int = COUNT_MOST) -> list[Depth]:
    """Return the depth of `queues`, or of all; each count stops at `most`."""
    found = await tx.fetch(statement("depth"), None if queues is None else list(queues), most)
    return [Depth(**dict(row)) for row in found]


async def depth_by_priority(tx: Tx, *, most: int = COUNT_MOST) -> dict[tuple[str, str, str], int]:
    """Return how many tasks there are by (queue, status, priority), for PENDING, QUEUED and IN_PROGRESS, where any are.

    CANCELLING counts as IN_PROGRESS. Counting what waits stops at `most` a queue and kind.
    """
    found = await tx.fetch(statement("depth_by_priority"), most)
    return {(row["queue"], row["status"], row["priority"]): row["number"] for row in found}


async def set_paused(tx: Tx, queue: str, *, paused: bool) -> None:
    """Pause or resume a queue: a paused one accepts tasks and starts none. Raises NotFound."""
    text = "update queues set paused = $2, updated_at = clock_timestamp() where name = $1 returning name"
    if await tx.fetchval(text, queue, paused) is None:
        raise _missing(queue)


async def set_limits(tx: Tx, queue: str, *, max_concurrent: int, max_per_key: int) -> None:
    """Set a queue's caps (0 is none). They hold at once: a claim demands a permit from then on. Raises NotFound.

    One call: a client that stops between two statements of a transaction would keep the gate's lock, and with it every
    gated task of everybody.
    """
    if await tx.fetchval(statement("set_limits"), queue, REGATE_MOST, max_concurrent, max_per_key) is None:
        raise _missing(queue)


async def regate(tx: Tx, queue: str, limit: int = REGATE_MOST) -> int:
    """Bring up to `limit` rows under the queue's cap; return how many. The leader's sweep does the rest."""
    return len(await tx.fetch(statement("regate"), queue, limit))


def _missing(queue: str) -> NotFound:
    message = f"there is no queue {queue!r}"
    return NotFound(message, fix="a queue appears with its first task; see GET /v1/queues", field="queue")
