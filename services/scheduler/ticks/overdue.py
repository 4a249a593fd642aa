"""The backstop of time limits: attempts that their worker should have ended long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import housekeeping
from core import queue_manager as queue

if TYPE_CHECKING:
    from services.scheduler.context import Context


async def tick(ctx: Context) -> int:
    """End those that the leader, too, has seen beyond their limit for a whole limit."""
    async with ctx.term.db.connection() as tx:
        found = await queue.overdue(tx, grace=housekeeping.OVERDUE_GRACE)
    over = ctx.overdue.step(ctx.clock.monotonic(), ((one.id, one.attempt, one.timeout_seconds) for one in found))
    if not over:
        return 0
    async with ctx.leading() as tx:
        moved = await housekeeping.end_overdue(tx, found, over, rand=ctx.clock.rand())
    return ctx.moved(moved)
