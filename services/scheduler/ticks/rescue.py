"""Take tasks back from workers that are dead, and now and then from holders that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 500
log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Rescue one batch from the dead."""
    return await _rescue(ctx, strays=False)


async def strays(ctx: Context) -> int:
    """Rescue one batch, also from holders without a row: none goes while it holds a task, so there should be none."""
    return await _rescue(ctx, strays=True)


async def _rescue(ctx: Context, *, strays: bool) -> int:
    async with ctx.leading() as tx:
        moved = await queue.rescue(tx, LIMIT, strays=strays)
    if moved:
        telemetry.metrics().rescues_total.labels("worker_lost").inc(len(moved))
        log.info("tasks were taken back from dead workers", tasks=len(moved))
    return ctx.moved(moved)
