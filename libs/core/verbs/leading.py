"""What the leader does. Every transaction of a leader that moves a task begins with `guard`."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from core.domain.events import EventType
from core.domain.lifecycle import Cause, TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import FREE_WORKER_DEATHS, MAX_CRASHES, RESCUE_BACKOFF, Moved
from core.errors import Deposed
from core.pool import Tx
from core.sql import statement
from core.verbs import rows
from core.verbs.owning import move
from core.verbs.running import Candidate

ADVISORY_CLASS = 0x7466  # "tf": the first key of every advisory lock of ours
LEADER_LOCK = 1
GATE_LOCK = 2
OPERATOR_LOCK = 3
LEADER = "scheduler"
OPERATOR = "operator"
_LOCKS = {LEADER: LEADER_LOCK, OPERATOR: OPERATOR_LOCK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far one (queue, type, priority) has been read; `limit` more rows are wanted."""

    queue: str
    type: str
    priority: PriorityType
    seq: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """An attempt beyond its time limit by the database's clock."""

    id: UUID
    attempt: int
    claim: UUID
    timeout_seconds: float
    max_attempts: int | None
    retry_count: int


async def guard(tx: Tx, epoch: int, name: str = LEADER) -> None:
    """Make sure that `epoch` still leads `name`, until this transaction ends. Raises Deposed.

    Two statements on purpose: the epoch must be read with a snapshot taken after the wait for the lock, or a woken
    ex-leader reads its own, stale epoch (reliability.md §2.4).
    """
    await tx.execute("select pg_advisory_xact_lock_shared($1, $2)", ADVISORY_CLASS, _LOCKS[name])
    current = await tx.fetchval("select epoch from leader where name = $1", name)
    if current != epoch:
        message = f"epoch {epoch} leads no more, {current} does"
        raise Deposed(message)


async def take_epoch(tx: Tx, holder: UUID, name: str = LEADER) -> int:
    """Become the leader of `name`: wait for the old leader's open transactions, then take the next epoch.

    Scheduler and operator have an epoch each, and a lock each. Bound the wait with the session's `statement_timeout`,
    not with `lock_timeout`.
    """
    await tx.execute("select pg_advisory_xact_lock($1, $2)", ADVISORY_CLASS, _LOCKS[name])
    return int(await tx.fetchval(statement("epoch_take"), name, holder))


async def feed(tx: Tx, cursors: Sequence[Cursor]) -> list[Candidate]:
    """Read QUEUED rows beyond each cursor, at most `limit` of each, in the order of starting inside a cursor."""
    found = await tx.fetch(
        statement("feed"),
        [cursor.queue for cursor in cursors],
        [cursor.type for cursor in cursors],
        [cursor.priority.value for cursor in cursors],
        [cursor.seq for cursor in cursors],
        [cursor.limit for cursor in cursors],
    )
    priorities = {priority.value: priority for priority in PriorityType}
    return [
        Candidate(
            id=row["id"],
            seq=row["seq"],
            queue=row["queue"],
            type=row["type"],
            priority=priorities[row["priority"]],
        )
        for row in found
    ]


async def rescue(tx: Tx, limit: int = 500, *, strays: bool = True) -> list[Moved]:
    """Take tasks back from dead workers; with `strays` also from holders that have no row, which costs more."""
    found = await tx.fetch(
        statement("rescue"),
        limit,
        FREE_WORKER_DEATHS,
        MAX_CRASHES,
        list(RESCUE_BACKOFF),
        TaskStatus.PENDING.value,
        strays,
    )
    return rows.moved(found)


async def promote_due(tx: Tx, limit: int = 1000) -> list[Moved]:
    """Make PENDING tasks QUEUED whose time has come."""
    return rows.moved(await tx.fetch(statement("promote_due"), limit))


async def demote(tx: Tx, *, types: Sequence[str], unannounced: bool, limit: int = 1000) -> list[Moved]:
    """Send gated QUEUED rows back that must not run now: no permit, paused queue, or (`unannounced`) unknown type."""
    return rows.moved(await tx.fetch(statement("demote"), limit, list(types), unannounced))


async def expire(tx: Tx, limit: int = 1000) -> list[Moved]:
    """End waiting tasks whose `expires_at` has passed."""
    ids = [row["id"] for row in await tx.fetch(statement("expired"), limit)]
    return await move(tx, Cause.EXPIRE, ids, event=EventType.EXPIRED) if ids else []


async def cancel_overdue(tx: Tx, limit: int = 1000) -> list[Moved]:
    """End tasks that were asked to stop and did not within their grace; what they still send is fenced."""
    ids = [row["id"] for row in await tx.fetch(statement("cancel_overdue"), limit)]
    return await move(tx, Cause.CANCEL_GRACE, ids, event=EventType.CANCELLED) if ids else []


async def overdue(tx: Tx, *, grace: float, limit: int = 500) -> list[Overdue]:
    """Return attempts beyond their time limit by `grace` seconds, on the database's clock."""
    return [Overdue(**dict(row)) for row in await tx.fetch(statement("overdue"), grace, limit)]
