"""Take permits back from gated tasks that must not, or cannot, run now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 1000


async def tick(ctx: Context) -> int:
    """Send one batch of gated QUEUED rows back to PENDING."""
    unannounced = ctx.capable.settled(ctx.clock.monotonic())
    async with ctx.leading() as tx:
        moved = await queue.demote(tx, types=ctx.capable.recent(), unannounced=unannounced, limit=LIMIT)
    return ctx.moved(moved)
