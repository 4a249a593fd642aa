"""What the owner of a task, or an administrator, does to it: cancel, redrive, another priority."""

from collections.abc import Sequence
from uuid import UUID

from core.domain.events import EventType
from core.domain.lifecycle import Cause, edges
from core.domain.ordering import PriorityType
from core.domain.task import Moved
from core.pool import Tx
from core.sql import statement
from core.verbs import rows

CANCEL_GRACE_SECONDS = 30.0


async def move(
    tx: Tx,
    cause: Cause,
    ids: Sequence[UUID],
    *,
    event: EventType,
    owner_id: int | None = None,
    message: str | None = None,
    grace: float = 0.0,
    anew: bool = False,
) -> list[Moved]:
    """Move tasks by `cause`; a row whose status has no such edge, or that is another owner's, does not come back."""
    way = edges(cause)
    found = await tx.fetch(
        statement("move"),
        list(ids),
        way.sources,
        way.free,
        way.gated,
        owner_id,
        event.value,
        cause.value,
        message,
        grace,
        anew,
    )
    return rows.moved(found)


async def cancel(
    tx: Tx,
    ids: Sequence[UUID],
    *,
    owner_id: int | None,
    by: str,
    force: bool = False,
    grace: float = CANCEL_GRACE_SECONDS,
) -> list[Moved]:
    """Cancel tasks: waiting ones at once; running ones are asked, or cut off at once with `force`.

    `owner_id` None means an administrator. After `grace` seconds the leader ends what has not stopped.
    """
    cause = Cause.FORCE_CANCEL if force else Cause.CANCEL
    return await move(tx, cause, ids, event=EventType.CANCELLED, owner_id=owner_id, message=f"by {by}", grace=grace)


async def redrive(tx: Tx, ids: Sequence[UUID], *, owner_id: int | None, by: str) -> list[Moved]:
    """Give tasks that ended without success a new life: counters start anew, the fence goes on."""
    return await move(
        tx, Cause.REDRIVE, ids, event=EventType.REDRIVEN, owner_id=owner_id, message=f"by {by}", anew=True
    )


async def reprioritize(
    tx: Tx, ids: Sequence[UUID], priority: PriorityType, *, owner_id: int | None, by: str
) -> list[Moved]:
    """Give waiting tasks another priority, at the end of its order."""
    found = await tx.fetch(statement("reprioritize"), list(ids), priority.value, owner_id, f"by {by}")
    return rows.moved(found)
