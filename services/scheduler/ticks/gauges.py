"""Metrics of depth, counted in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from core.domain.ordering import PriorityType

if TYPE_CHECKING:
    from services.scheduler.context import Context

_STATUSES: Final = ("PENDING", "QUEUED", "IN_PROGRESS")


async def tick(ctx: Context) -> int:
    """Count once."""
    async with ctx.term.db.connection() as tx:
        depths = await queue.depth(tx)
        numbers = await queue.depth_by_priority(tx)
    metrics = telemetry.metrics()
    for depth in depths:
        for status in _STATUSES:
            for priority in PriorityType:
                number = numbers.get((depth.queue, status, priority.value), 0)
                metrics.queue_tasks.labels(depth.queue, status, priority.value).set(number)
        metrics.queue_oldest_queued_seconds.labels(depth.queue).set(depth.oldest_queued_seconds or 0.0)
    return 0


def forget() -> None:
    """Say nothing more: the next leader counts, and two who tell different numbers help nobody."""
    metrics = telemetry.metrics()
    for gauge in (metrics.queue_tasks, metrics.queue_oldest_queued_seconds, metrics.workers):
        gauge.clear()
