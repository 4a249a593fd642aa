"""Watch the workers: declare dead whose beat stood still, and know what can be run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from core import queue_manager as queue
from core import telemetry

if TYPE_CHECKING:
    from services.scheduler.context import Context

log = telemetry.get_logger("scheduler")


async def tick(ctx: Context) -> int:
    """Read every live worker's beat once; how many were declared dead."""
    started = ctx.clock.monotonic()
    try:
        async with ctx.term.db.connection() as tx:
            workers = await queue.live_workers(tx)
    except BaseException:
        ctx.deaths.failed()
        raise
    still = ctx.deaths.step(started, ctx.clock.monotonic(), {worker.id: worker.beat_seq for worker in workers})
    dead = set()
    for worker, beat in still:
        async with ctx.leading() as tx:
            if await queue.mark_dead(tx, worker, beat):
                dead.add(worker)
    if dead:
        log.warning("workers are dead, their tasks are taken back", workers=[str(worker) for worker in dead])
        ctx.nudge("rescue")
    _learn(ctx, [worker for worker in workers if worker.id not in dead])
    return len(dead)


def _learn(ctx: Context, workers: list[queue.WorkerRow]) -> None:
    ctx.workers = workers
    announced = frozenset(
        kind for worker in workers if worker.state == "alive" for kind in (*worker.sync_types, *worker.async_types)
    )
    if announced != ctx.announced:
        ctx.announced = announced
        ctx.desk.walk_due = 0.0  # what waited at the gate for somebody to run it may go through
        ctx.feeder.relay()
        ctx.nudge("gates")
        ctx.nudge("feed")
    ctx.capable.step(ctx.clock.monotonic(), announced)
    states = Counter(worker.state for worker in workers)
    for state in ("alive", "cordoned", "draining"):
        telemetry.metrics().workers.labels(state).set(states[state])
