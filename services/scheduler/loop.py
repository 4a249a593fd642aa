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
    """A tick and how often it comes round. One that did `full` or more has more to do, and comes round at once.

    `share` is the most of the time that it may take: one that walks over what an old snapshot keeps in an index gets
    slower and slower, and then comes round less often. A nudge brings it round at once all the same. `later` are the
    seconds of a term for which it leaves the machine to others.
    """

    name: str
    tick: Callable[[Context], Awaitable[int]]
    every: float | Callable[[Context], float]
    full: int = 1_000_000
    share: float = 1.0
    later: float = 0.0

    def spacing(self, ctx: Context, took: float) -> float:
        """Return the seconds to the next round after one that took so many."""
        every = self.every if isinstance(self.every, float) else self.every(ctx)
        return max(every, took / self.share) if self.share < 1 else every


async def run(loop: Loop, ctx: Context) -> None:
    """Let a tick come round until it is cancelled or the term is over (Deposed)."""
    nudge = ctx.nudges.setdefault(loop.name, asyncio.Event())
    seconds = telemetry.metrics().dispatch_loop_seconds.labels(loop.name)
    failures = 0
    if loop.later:
        await ctx.clock.sleep(loop.later)
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
        took = ctx.clock.monotonic() - began
        seconds.observe(took)
        every = loop.spacing(ctx, took)
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
