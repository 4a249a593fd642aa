"""Housekeeping: retention, and the partitions of the audit trail."""

from core.pool import Tx
from core.sql import statement

EVENT_DAYS = 90  # as in the function taskflow_ensure_partitions of the migrations, which says it for itself
DAYS_AHEAD = 3  # the same


async def purge(tx: Tx, limit: int = 1000) -> int:
    """Delete up to `limit` ended tasks beyond their queue's retention, old idempotency keys and tries; how many."""
    await tx.execute(statement("purge_keys"), limit)
    await tx.execute(statement("purge_tries"), limit)
    return len(await tx.fetch(statement("purge_tasks"), limit))


async def ensure_partitions(tx: Tx) -> list[str]:
    """Make the partitions of the coming days and drop those beyond retention; return the names made or dropped.

    It is a function in the database that runs with its owner's rights: who keeps house owns no table. Attaching stops
    writers of the default partition for a moment and waits for those under way: run it with a `lock_timeout`.
    """
    return [row["name"] for row in await tx.fetch("select name from taskflow_ensure_partitions() as made (name)")]
