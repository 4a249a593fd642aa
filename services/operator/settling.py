"""A TaskQueue's settings, brought into PostgreSQL, where API, scheduler and workers read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from core.errors import Conflict
from services.operator.spec import queue_name

if TYPE_CHECKING:
    from services.operator.cluster import Json
    from services.operator.desk import Desk, Seen
    from services.operator.spec import TaskQueueSpec

AGAIN_SECONDS: Final = 600.0  # somebody may have changed the row
CONFLICT_SECONDS: Final = 10.0  # the other TaskQueue may be gone by then
log = telemetry.get_logger("operator")


async def settle(desk: Desk, seen: Seen, taskqueue: Json, spec: TaskQueueSpec) -> bool:
    """Write the settings when the spec changed, and every ten minutes. Raises Unavailable; Deposed ends the term.

    True when PostgreSQL has other ones now: what was counted before that is out of date.

    A queue that another TaskQueue sets is left alone, and `seen.conflict` says so.
    """
    about = taskqueue["metadata"]
    age = desk.clock.monotonic() - seen.settled_at
    if seen.settled == about["generation"] and age < (CONFLICT_SECONDS if seen.conflict else AGAIN_SECONDS):
        return False
    changed = False
    source = {name: about[name] for name in ("namespace", "name", "uid", "generation")}
    try:
        async with desk.term.transaction() as tx:
            changed = await queue.apply_taskqueue(tx, settings_of(spec, about["name"]), source=source)
    except Conflict as taken:
        seen.conflict = str(taken)
    else:
        seen.conflict = ""
        if changed:
            log.info("settings applied", taskqueue=about["name"], namespace=about["namespace"])
    seen.settled, seen.settled_at = about["generation"], desk.clock.monotonic()
    return changed


def settings_of(spec: TaskQueueSpec, name: str) -> queue.QueueSettings:
    """Return what PostgreSQL keeps of a spec."""
    return queue.QueueSettings(
        queue=queue_name(spec, name),
        paused=spec.paused,
        max_concurrent=spec.limits.max_concurrent,
        max_per_key=spec.limits.max_per_key,
        max_attempts=spec.task_defaults.max_attempts,
        timeout_seconds=float(spec.task_defaults.timeout_seconds),
        completed_seconds=spec.retention.completed_seconds,
        failed_seconds=spec.retention.failed_seconds,
        concurrency=spec.worker.concurrency,
    )
