"""All duties of a leader and their pace, and one term of doing them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from core import telemetry
from core.domain.watching import DeathWatch
from core.errors import Deposed
from core.feeder import Feeder
from core.waking import Waker
from services.scheduler import loop
from services.scheduler.context import Context
from services.scheduler.loop import Loop
from services.scheduler.ticks import (
    cancels,
    due,
    expire,
    feed,
    floors,
    gates,
    gauges,
    lists,
    overdue,
    rescue,
    retention,
    sign,
    sweep,
    wakes,
    watch,
)

if TYPE_CHECKING:
    from core.clock import Clock
    from core.leadership import Term
    from core.references import References

_SHARE = 0.1
_SMALL_SHARE = 0.02  # of what walks over all that was claimed since the oldest snapshot, and can wait
_LATER = 10.0  # seconds of a term, in which tasks that waited for a leader come first
log = telemetry.get_logger("scheduler")


def duties(lease: float) -> list[Loop]:
    """Return what a leader does; watching must be much faster than a lease is long."""
    return [
        Loop(name="sign", tick=sign.tick, every=0.5),
        Loop(name="watch", tick=watch.tick, every=min(1.0, lease / 8)),
        Loop(name="rescue", tick=rescue.tick, every=min(1.0, lease / 3), full=rescue.LIMIT, share=_SHARE),
        Loop(name="strays", tick=rescue.strays, every=60.0, full=rescue.LIMIT, share=_SMALL_SHARE, later=_LATER),
        Loop(name="due", tick=due.tick, every=0.5, full=due.LIMIT),
        Loop(name="gates", tick=gates.tick, every=1.0),
        Loop(name="wakes", tick=wakes.tick, every=0.0),
        Loop(name="feed", tick=feed.tick, every=feed.every),
        Loop(name="floors", tick=floors.tick, every=1.0, share=_SHARE),
        Loop(name="floors_check", tick=floors.check, every=60.0, share=_SMALL_SHARE, later=_LATER),
        Loop(name="sweep", tick=sweep.tick, every=2.0, full=sweep.LIMIT),
        Loop(name="expire", tick=expire.tick, every=1.0, full=expire.LIMIT, share=_SHARE),
        Loop(name="cancels", tick=cancels.tick, every=1.0, full=cancels.LIMIT, share=_SHARE),
        Loop(name="overdue", tick=overdue.tick, every=5.0, share=_SMALL_SHARE),
        Loop(name="lists", tick=lists.tick, every=5.0),
        Loop(name="retention", tick=retention.tick, every=10.0, full=retention.LIMIT),
        Loop(name="gauges", tick=gauges.tick, every=10.0, share=_SMALL_SHARE),
    ]


def context(term: Term, refs: References, *, clock: Clock, lease: float) -> Context:
    """Return the state of a term that begins: it knows nothing of what was before."""
    feeder = Feeder(term.db, refs, epoch=term.epoch, clock=clock)
    waker = Waker(term.db, clock)
    return Context(term=term, refs=refs, feeder=feeder, clock=clock, deaths=DeathWatch(lease), waker=waker)


async def lead(term: Term, keeper: asyncio.Task[None], refs: References, *, clock: Clock, lease: float) -> None:
    """Do all duties until the term is over. Returns when another leads."""
    ctx = context(term, refs, clock=clock, lease=lease)
    gauge = telemetry.metrics().leader.labels("scheduler")
    gauge.set(1)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_until_over(keeper))
            for duty in duties(lease):
                group.create_task(loop.run(duty, ctx), name=duty.name)
    except* Deposed as over:
        log.warning("deposed, standing by", epoch=term.epoch, why=str(over.exceptions[0]))
    finally:
        gauge.set(0)
        gauges.forget()


async def _until_over(keeper: asyncio.Task[None]) -> None:
    """Raise what ends the term; the keeper itself is not ours to cancel."""
    await asyncio.wait({keeper})
    keeper.result()
