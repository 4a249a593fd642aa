"""End waiting tasks whose `expires_at` has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue

if TYPE_CHECKING:
    from services.scheduler.context import Context

LIMIT = 1000


async def tick(ctx: Context) -> int:
    """Expire one batch."""
    async with ctx.leading() as tx:
        moved = await queue.expire(tx, LIMIT)
    return ctx.moved(moved)
