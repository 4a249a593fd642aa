"""The gate: let gated tasks through as far as their caps allow. Keys that were brought first, all keys in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue
from core.errors import Unavailable
from services.scheduler.context import BLIND_WALK_SECONDS, WALK_SECONDS

if TYPE_CHECKING:
    from core.domain.gates import GateKey
    from services.scheduler.context import Context

SLICE = 500  # keys of one walk, and of what the leader itself has brought
BATCH = 100  # keys of one transaction: the gate's lock is exclusive


async def tick(ctx: Context) -> int:
    """Look at the keys there are; how many tasks were let through."""
    # What others bring comes first, and of the leader's own keys a slice: when thousands of delayed tasks fall due
    # together, the key of a new task must not wait until all of them were looked at.
    keys = dict.fromkeys([*await ctx.refs.drain_gates(), *ctx.desk.take(SLICE)])
    keys |= dict.fromkeys(await _walk(ctx))
    if ctx.desk.keys:
        ctx.nudge("gates")
    if not ctx.announced:
        return 0  # nobody could run them; the walk finds them when somebody can
    wanted = list(keys)
    done = 0
    for at in range(0, len(wanted), BATCH):
        try:
            async with ctx.leading() as tx:
                moved = await queue.promote_gated(tx, wanted[at : at + BATCH], types=sorted(ctx.announced))
        except Unavailable:
            ctx.desk.put_back(wanted[at:])  # they were brought once, and the walk may be ten seconds away
            raise
        done += ctx.moved(moved)
    return done


async def _walk(ctx: Context) -> list[GateKey]:
    """Return the next slice of all keys that wait, when it is time."""
    desk, now = ctx.desk, ctx.clock.monotonic()
    if now < desk.walk_due:
        return []
    async with ctx.term.db.connection() as tx:
        found = await queue.walk_gates(tx, desk.place, SLICE)
    if len(found) == SLICE:
        desk.place = found[-1]
        ctx.nudge("gates")
    else:
        desk.place = queue.FIRST_KEY
        desk.walk_due = now + (BLIND_WALK_SECONDS if ctx.refs.degraded else WALK_SECONDS)
    return found
