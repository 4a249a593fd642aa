"""End tasks that were asked to stop and did not within their grace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 1000


async def tick(ctx: Context) -> int:
    """Cut off one batch; their workers are told, and what they still send is fenced."""
    async with ctx.leading() as tx:
        moved = await queue.cancel_overdue(tx, LIMIT)
    for row in moved:
        if row.worker_id is not None:
            await ctx.refs.publish_cancel(row.worker_id, [row.id], force=True)
    return ctx.moved(moved)
