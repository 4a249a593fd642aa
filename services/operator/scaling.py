"""How many pods a queue wants: numbers in, a number and its reason out. Reads no clock and does nothing.

What is wanted by the queue's depth passes, in this order: what its limit can use, the stabilisation window, the dead
band, idling, steps, a floor set by hand, bounds, hold. A later one is stronger than an earlier one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from services.operator import windows
from services.operator.views import Desired

if TYPE_CHECKING:
    from services.operator.spec import Scaling, TaskQueueSpec
    from services.operator.views import Demand, History

HEADROOM: Final = 0.85
"""Share of the slots that shall be busy: arrivals come in bunches."""
LEAST_HORIZON: Final = 0.25
"""An old task shortens the horizon to no less than this share: beyond it only more noise is ordered."""
BAND: Final = 0.1
_SMALL: Final = 3  # pods up to which a difference of one is worth a change
_LEAST_RUN: Final = 0.001
_UNKNOWN_RUN: Final = 10.0
_MOST: Final = 1_000_000.0
_MINUTE: Final = 60


def desired(
    spec: TaskQueueSpec,
    demand: Demand | None,
    ordered: int,
    history: History,
    now: float,
    *,
    trying: bool = False,
) -> Desired:
    """Return how many pods are wanted now.

    `ordered` is how many the Deployment has been told to have. `trying`: tasks of unknown types ask for one pod.
    """
    scaling = spec.scaling
    if scaling.mode in {"External", "Fixed"}:
        told = Desired(
            replicas=scaling.replicas, wanted=scaling.replicas, reason=f"scaling.replicas is {scaling.replicas}"
        )
        return _held(scaling, _bounded(scaling, told), ordered)
    if demand is None:
        reason = f"the depth of the queue is not known, so {ordered} stay"
        return Desired(replicas=ordered, wanted=ordered, reason=reason, limited_by="depth")
    wish = _wanted(spec, demand, history, now)
    if trying and not wish.replicas:
        wish = Desired(replicas=1, wanted=1, reason=_trial(demand))
    wish = _useful(spec, demand, wish)
    wish = _stable(scaling, wish, ordered, history, now)
    wish = _band(scaling, demand, wish, ordered)
    wish = _idle(scaling, wish, ordered, history, now)
    wish = _stepped(scaling, wish, ordered, history, now)
    if demand.paused and wish.replicas > ordered:
        wish = _limited(wish, ordered, "paused", "paused")
    wish = _by_hand(wish, history, now)
    return _held(scaling, _bounded(scaling, wish), ordered)


def run_seconds(spec: TaskQueueSpec, demand: Demand) -> float:
    """Return how long a task of the queue runs, in seconds: measured, or guessed from its limit while nothing has."""
    if demand.run_seconds is not None:
        return _sane(demand.run_seconds, least=_LEAST_RUN)
    limit = spec.task_defaults.timeout_seconds
    return limit / 4 if limit else _UNKNOWN_RUN


def wait_time(
    *,
    queued: float,
    running: float,
    arrivals: float,
    run: float,
    oldest: float,
    target: float,
    start: float,
    concurrency: int,
) -> int:
    """Return the pods that it takes to start what waits, and what arrives meanwhile, within `target` seconds.

    `arrivals` per second; `run`: seconds that a task runs; `start`: seconds that a pod takes to come up. Both the
    horizon of the target and the one that an overdue task shortens are tried, and the larger answer is taken: the
    shorter one alone gives less where arrivals outweigh the backlog.
    """
    run = _sane(run, least=_LEAST_RUN)
    horizon = max(target - start, target / 2)
    horizons = [horizon, horizon * max(LEAST_HORIZON, target / oldest)] if oldest > target else [horizon]
    slots = max((queued + running + arrivals * ahead) / (1 + ahead / run) for ahead in horizons)
    pods = _ceil(slots / (concurrency * HEADROOM))
    return max(pods, 1) if queued or running else pods


def _wanted(spec: TaskQueueSpec, demand: Demand, history: History, now: float) -> Desired:
    scaling, concurrency = spec.scaling, spec.worker.concurrency
    if demand.paused:
        pods = _ceil(demand.running / concurrency)
        return Desired(replicas=pods, wanted=pods, reason=f"paused, {_running(demand)}")
    if scaling.mode == "QueueDepth":
        pods = _ceil((demand.queued + demand.running) / (scaling.tasks_per_replica or concurrency))
        return Desired(replicas=pods, wanted=pods, reason=_told(demand))
    pods = wait_time(
        queued=demand.queued,
        running=demand.running,
        arrivals=windows.arrivals(history, demand, now),
        run=run_seconds(spec, demand),
        oldest=_sane(demand.oldest_queued_seconds or 0.0),
        target=scaling.target_wait_seconds,
        start=windows.start_seconds(history),
        concurrency=concurrency,
    )
    reason = f"{_told(demand)}, target {scaling.target_wait_seconds} s"
    return Desired(replicas=pods, wanted=pods, reason=reason)


def _useful(spec: TaskQueueSpec, demand: Demand, wish: Desired) -> Desired:
    if not demand.max_concurrent:
        return wish
    most = _ceil(demand.max_concurrent / spec.worker.concurrency)
    if wish.replicas <= most:
        return wish
    why = f"at most {demand.max_concurrent} tasks may run at once"
    short = _limited(wish, most, "concurrency", why)
    return Desired(replicas=most, wanted=most, reason=short.reason, limited_by=short.limited_by)


def _stable(scaling: Scaling, wish: Desired, ordered: int, history: History, now: float) -> Desired:
    if wish.replicas >= ordered:
        return wish
    window = scaling.scale_down.stabilization_seconds
    most = max((pods for at, pods in history.proposals if at > now - window), default=0)
    stays = min(ordered, max(most, wish.replicas))
    return wish if stays == wish.replicas else _limited(wish, stays, "window", f"more was wanted within {window} s")


def _band(scaling: Scaling, demand: Demand, wish: Desired, ordered: int) -> Desired:
    """Leave small differences alone in mode WaitTime, whose measured rates never stand still."""
    if scaling.mode != "WaitTime" or wish.replicas in {0, ordered} or not ordered:
        return wish
    late = (demand.oldest_queued_seconds or 0.0) > scaling.target_wait_seconds / 2
    difference = abs(wish.replicas - ordered)
    slight = difference <= BAND * ordered or (wish.replicas > _SMALL and difference < 2)  # noqa: PLR2004 - see _SMALL
    if not slight or (wish.replicas > ordered and late):
        return wish
    return _limited(wish, ordered, "band", "a small difference")


def _idle(scaling: Scaling, wish: Desired, ordered: int, history: History, now: float) -> Desired:
    if wish.replicas or not ordered or scaling.min_replicas:  # the last pod stays in any case
        return wish
    idle = now - (now if history.last_busy is None else history.last_busy)
    if idle >= scaling.idle_to_zero_seconds:
        return wish
    return _limited(wish, 1, "idle", f"idle for {idle:.0f} s of {scaling.idle_to_zero_seconds} s")


def _stepped(scaling: Scaling, wish: Desired, ordered: int, history: History, now: float) -> Desired:
    up, down = scaling.scale_up, scaling.scale_down
    if wish.replicas > ordered:
        added = windows.within(history.ups, up.period_seconds, now)
        before = max(0, ordered - added)
        most = before + max(up.max_pods, _ceil(before * up.max_percent / 100))
        if wish.replicas > most:
            return _limited(wish, max(ordered, most), "step", f"no more than {most - before} in {up.period_seconds} s")
    elif wish.replicas < ordered:
        left = max(0, down.max_pods - windows.within(history.downs, down.period_seconds, now))
        if wish.replicas < ordered - left:
            why = f"no more than {down.max_pods} in {down.period_seconds} s"
            return _limited(wish, ordered - left, "step", why)
    return wish


def _by_hand(wish: Desired, history: History, now: float) -> Desired:
    floor, left = windows.manual_floor(history, now)
    if floor <= wish.replicas:
        return wish
    why = f"set to {floor} by hand, a floor for {math.ceil(left / _MINUTE)} min more"
    return _limited(wish, floor, "manual", why)


def _bounded(scaling: Scaling, wish: Desired) -> Desired:
    if wish.replicas < scaling.min_replicas:
        wish = _limited(wish, scaling.min_replicas, "min", f"minReplicas is {scaling.min_replicas}")
    # Last, so that it wins should an old object have its bounds crossed.
    if wish.replicas > scaling.max_replicas:
        wish = _limited(wish, scaling.max_replicas, "max", f"maxReplicas is {scaling.max_replicas}")
    return wish


def _held(scaling: Scaling, wish: Desired, ordered: int) -> Desired:
    stopped = {"None": False, "All": True, "Up": wish.replicas > ordered, "Down": wish.replicas < ordered}
    if not stopped[scaling.hold] or wish.replicas == ordered:
        return wish
    return _limited(wish, ordered, "hold", f"scaling.hold is {scaling.hold}")


def _limited(wish: Desired, replicas: int, by: str, why: str) -> Desired:
    """Return `wish` with another number; the reason names the demand and the last thing that changed it."""
    demand = wish.reason.partition(";")[0]
    return Desired(replicas=replicas, wanted=wish.wanted, reason=f"{demand}; {why}", limited_by=by)


def _trial(demand: Demand) -> str:
    names = ", ".join(demand.unknown_types)
    return f"{demand.unknown} queued of types that no worker has announced ({names}), one pod tries them"


def _told(demand: Demand) -> str:
    about = "≥" if demand.capped else ""
    parts = [f"{about}{demand.queued} queued"]
    if demand.queued and demand.oldest_queued_seconds is not None:
        parts.append(f"oldest {_sane(demand.oldest_queued_seconds):.0f} s")
    if demand.running or not demand.queued:
        parts.append(_running(demand))
    return ", ".join(parts)


def _running(demand: Demand) -> str:
    return f"{demand.running} running"


def _sane(value: float, *, least: float = 0.0) -> float:
    """Return a measured value within what can be reckoned with; what is no number counts as the least."""
    return least if math.isnan(value) else min(max(value, least), _MOST)


def _ceil(value: float) -> int:
    """Return the whole pods for so many; what floating point adds to a whole number is no pod."""
    return math.ceil(value - 1e-9)
