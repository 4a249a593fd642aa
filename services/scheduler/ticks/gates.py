"""The gate: let gated tasks through as far as their caps allow. Keys that were brought first, all keys in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import queue_manager as queue
from core.errors import Unavailable
from core.verbs.feeding import queue_settings
from services.scheduler.context import BLIND_WALK_SECONDS, SETTINGS_SECONDS, WALK_SECONDS

if TYPE_CHECKING:
    from core.domain.gates import GateKey
    from services.scheduler.context import Context

SLICE = 500  # keys of one walk, and of what the leader itself has brought
BATCH = 100  # keys of one transaction: the gate's lock is exclusive


async def tick(ctx: Context) -> int:
    """Look at the keys there are; how many tasks were let through."""
    walked = await _walk(ctx)  # before any key is taken: it may fail, and keys are brought once
    # What others bring comes first, and of the leader's own keys a slice: when thousands of delayed tasks fall due
    # together, the key of a new task must not wait until all of them were looked at.
    keys = dict.fromkeys([*await ctx.refs.drain_gates(), *ctx.desk.take(SLICE)])
    keys |= dict.fromkeys(walked)
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
    if now >= desk.settings_due:
        async with ctx.term.db.connection() as tx:
            desk.learn(await queue_settings(tx))
        desk.settings_due = now + SETTINGS_SECONDS
    if now < desk.walk_due:
        return []
    if desk.place == queue.FIRST_KEY:
        desk.walk_again = False
    async with ctx.term.db.connection() as tx:
        found = await queue.walk_gates(tx, desk.place, SLICE)
    if len(found) == SLICE:
        desk.place = found[-1]
        ctx.nudge("gates")
    else:
        desk.place = queue.FIRST_KEY
        seconds = BLIND_WALK_SECONDS if ctx.refs.degraded or desk.walk_again else WALK_SECONDS
        desk.walk_due = now + seconds
    return found
