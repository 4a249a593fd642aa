"""One batch of endings into PostgreSQL, and what became of each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from core import queue_manager as queue

if TYPE_CHECKING:
    from uuid import UUID

    from core.domain.task import Ending, Moved
    from core.pool import Database


class Answer(NamedTuple):
    """What became of a batch: `moved` ended now, `fenced` belong to another owner, `locked` could not be reached.

    What is in none of the three was recorded by an earlier try whose answer was lost.
    """

    moved: list[Moved]
    fenced: list[Ending]
    locked: list[Ending]


async def record(database: Database, batch: list[Ending], *, skip_locked: bool) -> Answer:
    """Record a batch. Recording it again is harmless, because the fence lets each ending through once.

    `skip_locked` waits for no row. Raises Unavailable, also when a lock is not had in time, and whatever PostgreSQL
    says about the endings.
    """
    # Each statement is a transaction of its own: a process that freezes between two of them holds no lock.
    async with database.connection() as tx:
        moved = await queue.finish(tx, batch, skip_locked=skip_locked)
    if len(moved) == len(batch):
        return Answer(moved, [], [])
    came = {(row.id, row.attempt) for row in moved}
    missing = [ending for ending in batch if (ending.id, ending.attempt) not in came]
    async with database.connection() as tx:
        held = await queue.still_held(tx, missing)
        locked, rest = _apart(missing, held)
        if not rest:
            return Answer(moved, [], locked)
        # Whatever an earlier try has recorded is not fenced.
        _, fenced = _apart(rest, await queue.ended_under(tx, rest))
        if fenced:
            await queue.record_fenced(tx, fenced)
    return Answer(moved, fenced, locked)


def _apart(endings: list[Ending], keys: set[tuple[UUID, int, UUID]]) -> tuple[list[Ending], list[Ending]]:
    """Split endings into those whose (id, attempt, claim) is among `keys`, and the others."""
    those: list[Ending] = []
    others: list[Ending] = []
    for one in endings:
        (those if (one.id, one.attempt, one.claim) in keys else others).append(one)
    return those, others
