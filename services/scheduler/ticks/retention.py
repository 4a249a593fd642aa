"""Retention: ended tasks, old idempotency keys, rows of dead workers, and partitions of the audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import housekeeping, telemetry
from core import queue_manager as queue

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 500
PARTITION_SECONDS = 3600.0
FORGET_SECONDS = 24 * 3600.0
log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Purge one batch."""
    if ctx.clock.monotonic() >= ctx.partitions_due:
        async with ctx.leading() as tx:
            changed = await housekeeping.keep_partitions(tx)
        ctx.partitions_due = ctx.clock.monotonic() + PARTITION_SECONDS
        if changed:
            log.info("partitions of the audit trail were made or dropped", names=changed)
    async with ctx.leading() as tx:
        await queue.forget_workers(tx, age=FORGET_SECONDS, limit=LIMIT)
        return await queue.purge(tx, LIMIT)
