"""Let through whose time has come: delays and retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 1000


async def tick(ctx: Context) -> int:
    """Promote one batch; who has no worker yet gets one."""
    async with ctx.leading() as tx:
        moved = await queue.promote_due(tx, LIMIT)
    await ctx.waker.tell({row.queue for row in moved})
    return ctx.moved(moved)
