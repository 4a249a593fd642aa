"""Feed the lists of references."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.scheduler.context import Context


async def tick(ctx: Context) -> int:
    """One round of the feeder; how many references it added."""
    if ctx.refs.off:
        return 0
    if wait := ctx.feeder.spacing():
        await ctx.clock.sleep(wait)
    return await ctx.feeder.round()


def every(ctx: Context) -> float:
    """As often as the feeder thinks worth while."""
    return ctx.feeder.pause()
