"""Listen to those who wake the leader, and let the feeder and the gate come round at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.scheduler.context import Context

LISTEN_SECONDS = 1.0
GATHER_SECONDS = 0.002  # the others who call at the same moment are heard by the same round


async def tick(ctx: Context) -> int:
    """Wait for one wake, or a second; 1 when there was one."""
    why = await ctx.refs.wait_for_wake(LISTEN_SECONDS)
    if not why:
        return 0
    ctx.feeder.woken(why)
    ctx.nudge("feed")
    ctx.nudge("gates")
    await ctx.clock.sleep(GATHER_SECONDS)
    return 1
