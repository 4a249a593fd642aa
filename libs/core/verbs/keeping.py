"""Housekeeping: retention, and the partitions of the audit trail."""

from datetime import date, timedelta

from core.pool import Tx
from core.sql import statement

EVENT_DAYS = 90
DAYS_AHEAD = 3


async def purge(tx: Tx, limit: int = 1000) -> int:
    """Delete up to `limit` ended tasks beyond their queue's retention, and old idempotency keys; return how many."""
    await tx.execute(statement("purge_keys"), limit)
    return len(await tx.fetch(statement("purge_tasks"), limit))


def _partition(day: date) -> str:
    return f"task_events_{day:%Y%m%d}"


async def ensure_partitions(tx: Tx) -> list[str]:
    """Make the partitions of the coming days and drop those beyond retention; return the names made or dropped.

    Attaching stops writers of the default partition for a moment and waits for those under way: run it with a
    `lock_timeout`.
    """
    today: date = await tx.fetchval("select (clock_timestamp() at time zone 'UTC')::date")
    await tx.execute("set local timezone = 'UTC'")
    found = await tx.fetch(
        "select inhrelid::regclass::text as name from pg_inherits where inhparent = 'task_events'::regclass"
    )
    names = {row["name"] for row in found}
    changed = []
    for ahead in range(DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        if _partition(day) not in names:
            changed.append(await _attach(tx, day))
    oldest = _partition(today - timedelta(days=EVENT_DAYS))
    for name in sorted(names):
        if name < oldest and name.startswith("task_events_2"):
            await tx.execute(f"drop table {name}")
            changed.append(name)
    return changed


async def _attach(tx: Tx, day: date) -> str:
    name = _partition(day)
    # Events of a day that nobody made a partition for went to the default one; as long as they stay there, that day's
    # cannot be attached. The lock comes first, or events written meanwhile would be in the way again.
    await tx.execute("lock table task_events_default in access exclusive mode")
    await tx.execute(f"create table {name} (like task_events including all)")
    await tx.execute(
        f"with late as (delete from task_events_default where created_at >= $1::date and created_at < $1::date + 1"  # noqa: S608 - a name made of a date
        f" returning *) insert into {name} select * from late",
        day,
    )
    await tx.execute(
        f"alter table task_events attach partition {name}"
        f" for values from ('{day:%Y-%m-%d}') to ('{day + timedelta(days=1):%Y-%m-%d}')"
    )
    return name
