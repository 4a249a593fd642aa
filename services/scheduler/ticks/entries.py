"""Tidy the streams: what dead consumers held goes back, streams and wants that nobody has any more are dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import telemetry

if TYPE_CHECKING:
    from services.scheduler.context import Context

IDLE_SECONDS = 60.0  # a worker that registers may read a stream before the leader knows it
log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Sweep every stream once; how many references went back."""
    if ctx.refs.off:
        return 0
    now = ctx.clock.monotonic()
    readable = ctx.feeder.readable()
    existing = await ctx.refs.list_streams()
    back, dropped = await ctx.refs.sweep(sorted(existing & readable), [worker.id for worker in ctx.workers])
    if back or dropped:
        log.info("references of lost consumers", given_back=back, dropped=dropped)
    idle = existing - readable
    ctx.idle_streams = {stream: ctx.idle_streams.get(stream, now) for stream in idle}
    gone = [stream for stream, since in ctx.idle_streams.items() if now - since >= IDLE_SECONDS]
    await ctx.refs.delete_streams(gone)
    known = {worker.id for worker in ctx.workers}
    await ctx.refs.forget_lanes(lane for lane in ctx.feeder.strangers if lane[0] not in known)
    return back
