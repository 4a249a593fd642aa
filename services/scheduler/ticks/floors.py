"""Raise the floors from which QUEUED rows are looked for, and look now and then whether they are true.

The only writes of a leader without its epoch: a floor that is true is so whoever says it, one that is lower does no
harm, and these looks may take long under an old snapshot, while the next leader would have to wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from core.domain.floors import LEAST_STEP

if TYPE_CHECKING:
    from services.scheduler.context import Context

OVERLAP_SECONDS: Final = 60.0  # an ending may be committed so long after its time
log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Raise them once enough has happened; how many."""
    footing = ctx.footing
    async with ctx.term.db.connection() as tx:
        settled = footing.settled.step(await queue.look_at_sequence(tx))
    events = footing.settled.events
    if 0 <= events - footing.events < LEAST_STEP:
        return 0
    began = ctx.clock.monotonic()
    seconds = None if footing.at is None else began - footing.at + OVERLAP_SECONDS
    async with ctx.term.db.connection() as tx:
        raised = await queue.raise_floors(tx, settled, seconds=seconds)
        if raised:
            ctx.feeder.stand(await queue.floors(tx))
    footing.events, footing.at = events, began
    return len(raised)


async def check(ctx: Context) -> int:
    """Lower those that are not true; how many. What lay below is found by the next look.

    The feeder takes over what the table says: PostgreSQL may have been set back to a time before the last raise.
    """
    async with ctx.term.db.connection() as tx:
        lowered = await queue.lower_floors(tx)
        ctx.feeder.stand(await queue.floors(tx))
    if lowered:
        log.error("tasks were QUEUED below the floor, looking at them again", routes=list(lowered))
        ctx.feeder.again(lowered)
        ctx.nudge("feed")
    return len(lowered)
