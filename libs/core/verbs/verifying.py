"""Read tasks and their events, and tell what contradicts them. Nothing here locks or writes."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from core.pool import Tx
from core.sql import statement
from core.verbs.keeping import EVENT_DAYS

FIRST_ID: Final = UUID(int=0)
LAST_ID: Final = UUID(int=(1 << 128) - 1)
_WHOLE_DAYS: Final = EVENT_DAYS - 1  # a day of margin: the oldest partition goes at any hour of its last day


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A task that is not as its events say. `kind` is a word for programs, `what` a sentence for people."""

    id: UUID
    kind: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a slice held. `last` is the id at which the slice ended; `done` says that there is nothing after it."""

    last: UUID
    tasks: int
    events: int
    found: list[Contradiction]
    done: bool


async def verify_slice(tx: Tx, after: UUID, *, tasks: int, events: int) -> Verified:
    """Verify what follows `after`, as far as about so many tasks and events: two short statements."""
    bound = await tx.fetchval(statement("verify_bound"), after, tasks, events)
    return await _verify(tx, after, bound or LAST_ID, done=bound is None)


async def verify_newest(tx: Tx, tasks: int) -> Verified:
    """Verify so many of the tasks that were submitted last."""
    return await _verify(tx, await tx.fetchval(statement("verify_newest"), tasks) or FIRST_ID, LAST_ID, done=True)


async def _verify(tx: Tx, after: UUID, last: UUID, *, done: bool) -> Verified:
    rows = await tx.fetch(statement("verify_slice"), after, last, _WHOLE_DAYS)
    *found, counted = sorted(rows, key=lambda row: row["id"] is None)
    return Verified(
        last=last,
        tasks=counted["tasks"],
        events=counted["events"],
        found=[Contradiction(id=row["id"], kind=row["kind"], what=row["what"]) for row in found],
        done=done,
    )
