"""Give a sign of life in Redis: whoever misses it starts tasks without a leader's help."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.scheduler.context import Context


async def tick(ctx: Context) -> int:
    """Give it once."""
    if not ctx.refs.off:
        await ctx.refs.lead()
    return 0
