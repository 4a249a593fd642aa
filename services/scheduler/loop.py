"""The one loop. It owns pace, jitter, back-off, metrics and stopping; what is done is the tick's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core import telemetry
from core.errors import Deposed, Unavailable
from core.pool import heed_cancel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from services.scheduler.context import Context

LEAST_BACKOFF, MOST_BACKOFF = 0.2, 5.0
_FAST = 6  # failures in a row until the back-off is at its longest
log = telemetry.get_logger("scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A tick and how often it comes round. One that did `full` or more has more to do, and comes round at once."""

    name: str
    tick: Callable[[Context], Awaitable[int]]
    every: float | Callable[[Context], float]
    full: int = 1_000_000


async def run(loop: Loop, ctx: Context) -> None:
    """Let a tick come round until it is cancelled or the term is over (Deposed)."""
    nudge = ctx.nudges.setdefault(loop.name, asyncio.Event())
    seconds = telemetry.metrics().dispatch_loop_seconds.labels(loop.name)
    failures = 0
    while True:
        nudge.clear()
        began = ctx.clock.monotonic()
        done = 0
        try:
            done = await loop.tick(ctx)
            failures = 0
        except Deposed:
            raise
        except Unavailable as away:
            failures += 1
            if failures == 1:
                log.warning("a store is away, trying on", tick=loop.name, error=str(away))
        except Exception:
            failures += 1
            log.exception("a tick failed, trying again", tick=loop.name, failures=failures)
        heed_cancel()
        seconds.observe(ctx.clock.monotonic() - began)
        every = loop.every if isinstance(loop.every, float) else loop.every(ctx)
        await _rest(nudge, pause(every, failures, more=done >= loop.full, rand=ctx.clock.rand()))


def pause(every: float, failures: int, *, more: bool, rand: float) -> float:
    """Return how long to rest: not at all with more to do, the tick's pace, or ever longer while it fails."""
    if failures:
        return min(LEAST_BACKOFF * 2.0 ** min(failures, _FAST), MOST_BACKOFF) * (0.5 + rand / 2)
    return 0.0 if more else every * (0.9 + 0.2 * rand)


async def _rest(nudge: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await nudge.wait()
