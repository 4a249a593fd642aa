"""Take tasks back from workers that are dead, and now and then from holders that nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 500
STRAYS_SECONDS = 60.0  # no row of a worker goes while it holds a task, so this finds what should not be
_SHARE = 0.02
log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Rescue one batch."""
    began = ctx.clock.monotonic()
    strays = began >= ctx.strays_due
    async with ctx.leading() as tx:
        moved = await queue.rescue(tx, LIMIT, strays=strays)
    if strays and len(moved) < LIMIT:
        now = ctx.clock.monotonic()
        ctx.strays_due = now + max(STRAYS_SECONDS, (now - began) / _SHARE)
    if moved:
        telemetry.metrics().rescues_total.labels("worker_lost").inc(len(moved))
        log.info("tasks were taken back from dead workers", tasks=len(moved))
    return ctx.moved(moved)
