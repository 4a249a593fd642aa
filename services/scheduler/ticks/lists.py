"""Tidy Redis: lists of references and wants that nobody has any more are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.scheduler.context import Context

IDLE_SECONDS = 60.0  # a worker that registers may read a list before the leader knows it


async def tick(ctx: Context) -> int:
    """Look at every list once; how many were dropped."""
    if ctx.refs.off:
        return 0
    now = ctx.clock.monotonic()
    idle = await ctx.refs.existing() - ctx.feeder.readable()
    ctx.idle_lists = {key: ctx.idle_lists.get(key, now) for key in idle}
    gone = [key for key, since in ctx.idle_lists.items() if now - since >= IDLE_SECONDS]
    await ctx.refs.delete(gone)
    known = {worker.id for worker in ctx.workers}
    await ctx.refs.forget_lanes(lane for lane in ctx.feeder.strangers if lane[0] not in known)
    return len(gone)
