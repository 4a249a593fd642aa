"""The status of a TaskQueue: numbers, conditions, and one word for people; and when it is worth writing."""

from __future__ import annotations

from datetime import timedelta
from math import floor, log10
from typing import TYPE_CHECKING, Any, Final

from services.operator import conditions, victims, windows
from services.operator.answer import Depth, LastScale, Manual, TaskQueueStatus
from services.operator.objects import selector

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from services.operator.conditions import Fact
    from services.operator.spec import TaskQueueSpec
    from services.operator.views import History, Plan, QueueView, Scale

WRITE_SECONDS: Final = 10.0
"""Numbers alone are written no more often than this."""
_MINUTE: Final = 60
_LONG: Final = 600
_MOST_REASON: Final = 500


def status(spec: TaskQueueSpec, view: QueueView, plan: Plan, *, now: float, at: datetime) -> TaskQueueStatus:
    """Return the status before `plan.scale` is carried out; `scaled` adds that."""
    found = conditions.facts(spec, view, plan)
    pods = victims.active(view.pods)
    ordered = view.deployment.replicas if view.deployment else 0
    demand = view.demand
    update: dict[str, Any] = {
        "observed_generation": view.generation,
        "phase": _phase(spec, view, found),
        "reason": _reason(found, plan)[:_MOST_REASON],
        "ready": f"{conditions.takers(view)}/{ordered}",
        "replicas": ordered,
        "ready_replicas": conditions.takers(view),
        "desired_replicas": plan.desired.replicas,
        "selector": ",".join(f"{name}={value}" for name, value in selector(view.name).items()),
        "manual": _manual(view.status, plan.history, now, at),
        "conditions": conditions.merged(view.status.conditions, found, generation=view.generation, at=at),
    }
    if view.workers_known:
        update |= {
            "busy_replicas": sum(victims.busy(pod) for pod in pods),
            "draining_replicas": sum(victims.cordoned(pod) for pod in pods),
        }
    if demand is not None:
        update |= {
            "depth": Depth(
                pending=demand.pending,
                queued=demand.queued + demand.unknown,
                running=demand.running,
                failed=demand.failed,
            ),
            "depth_capped": demand.capped,
            "oldest_queued_seconds": _seconds(max(demand.oldest_queued_seconds or 0.0, demand.unknown_seconds or 0.0)),
            "arrival_per_second": _two_digits(windows.arrivals(plan.history, demand, now)),
            "finish_per_second": _two_digits(demand.finished_minute / _MINUTE),
        }
    return view.status.model_copy(update=update)


def scaled(before: TaskQueueStatus, change: Scale, at: datetime) -> TaskQueueStatus:
    """Return the status after the API server accepted a change of replicas."""
    last = LastScale(time=at, from_=change.from_, to=change.to, reason=change.reason[:_MOST_REASON])
    ready = f"{before.ready_replicas}/{change.to}"
    return before.model_copy(update={"last_scale": last, "replicas": change.to, "ready": ready})


def body(of: TaskQueueStatus) -> dict[str, Any]:
    """Return a status as the API server takes it."""
    return of.model_dump(mode="json", by_alias=True, exclude_none=True)


def worth_writing(old: TaskQueueStatus, new: TaskQueueStatus, seconds: float) -> bool:
    """Tell whether to write `new` over `old`, which was written `seconds` ago.

    What programs wait for is written at once, numbers that only people read at most each WRITE_SECONDS.
    """
    return _signal(old) != _signal(new) or (seconds >= WRITE_SECONDS and old != new)


def _signal(of: TaskQueueStatus) -> tuple[object, ...]:
    flips = frozenset((condition.type, condition.status) for condition in of.conditions)
    numbers = (of.observed_generation, of.replicas, of.ready_replicas, of.desired_replicas)
    return (*numbers, of.phase, of.selector, of.last_scale, of.manual, flips)


def _phase(spec: TaskQueueSpec, view: QueueView, found: Mapping[str, Fact]) -> str:
    if view.deleting:
        return "Deleting"
    if conditions.wrong(found):
        return "Degraded"
    if view.deployment is None or not view.settings_applied:
        return "Pending"
    if found["Paused"].holds:
        return "Paused"
    if spec.scaling.hold != "None":
        return "Held"
    if found["Progressing"].holds:
        return "Scaling"
    if found["UnknownTypes"].holds:
        return "UnknownTypes"
    return "Ready" if view.deployment.replicas else "Idle"


def _reason(found: Mapping[str, Fact], plan: Plan) -> str:
    amiss = conditions.wrong(found)
    if amiss:
        return f"{amiss.reason}: {amiss.message}"
    return found["UnknownTypes"].message if found["UnknownTypes"].holds else plan.desired.reason


def _manual(before: TaskQueueStatus, history: History, now: float, at: datetime) -> Manual | None:
    if history.manual is None:
        return None
    if history.manual_since is None:
        return Manual(replicas=history.manual)
    # What is written stays as it is: the two clocks would make another second of it each time.
    if before.manual and before.manual.replicas == history.manual and before.manual.since:
        return before.manual
    since = at - timedelta(seconds=now - history.manual_since)
    return Manual(replicas=history.manual, since=since.replace(microsecond=0))


def _seconds(value: float) -> int:
    """Return an age as people read it: to 10 s beyond a minute, to a minute beyond ten."""
    step = 1 if value < _MINUTE else 10 if value < _LONG else _MINUTE
    return int(min(value, 1e9) // step) * step


def _two_digits(rate: float) -> float:
    return round(rate, 1 - floor(log10(rate))) if rate > 0 else 0.0
