"""Metrics of depth, counted in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry

if TYPE_CHECKING:
    from services.scheduler.context import Context


async def tick(ctx: Context) -> int:
    """Count once."""
    async with ctx.term.db.connection() as tx:
        depths = await queue.depth(tx)
    metrics = telemetry.metrics()
    for depth in depths:
        for status, number in (("PENDING", depth.pending), ("QUEUED", depth.queued), ("IN_PROGRESS", depth.running)):
            metrics.queue_tasks.labels(depth.queue, status, "").set(number)  # counted over all priorities
        metrics.queue_oldest_queued_seconds.labels(depth.queue).set(depth.oldest_queued_seconds or 0.0)
    return 0
