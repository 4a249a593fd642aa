"""Take tasks back from workers that are dead or gone, whatever happened before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 500
log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Rescue one batch."""
    async with ctx.leading() as tx:
        moved = await queue.rescue(tx, LIMIT)
    if moved:
        telemetry.metrics().rescues_total.labels("worker_lost").inc(len(moved))
        log.info("tasks were taken back from dead workers", tasks=len(moved))
    return ctx.moved(moved)
