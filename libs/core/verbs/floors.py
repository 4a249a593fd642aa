"""Floors: from where on to look for QUEUED rows. What they are, and why they are true, is said in domain/floors.py."""

from collections.abc import Iterable

from core.domain.cursors import Route
from core.domain.floors import LEAST_STEP, SequenceLook
from core.domain.ordering import PriorityType
from core.pool import Tx
from core.sql import statement
from core.verbs.rows import Row

Floors = dict[Route, int]


async def look_at_sequence(tx: Tx) -> SequenceLook:
    """Return how far the sequence has come, and which transactions are under way."""
    row = await tx.fetchrow(statement("sequence"))
    return SequenceLook(row["last"], row["oldest"], row["next"], row["events"])


async def floors(tx: Tx) -> Floors:
    """Return every floor there is; a route without one begins at 0."""
    return _floors(await tx.fetch("select queue, type, priority::text as priority, seq from ready_floors"))


async def raise_floors(tx: Tx, settled: int, *, step: int = LEAST_STEP, seconds: float | None = None) -> Floors:
    """Raise what can be raised by `step` or more; return it.

    `settled` must be older than this transaction's snapshot. With `seconds`, only queues in which something ended
    since then are looked at.
    """
    return _floors(await tx.fetch(statement("raise_floors"), settled, step, seconds))


async def lower_floors(tx: Tx) -> Floors:
    """Lower the floors that are not true, and return them: there should be none."""
    return _floors(await tx.fetch(statement("lower_floors")))


def _floors(found: Iterable[Row]) -> Floors:
    return {(row["queue"], row["type"], PriorityType(row["priority"])): row["seq"] for row in found}
