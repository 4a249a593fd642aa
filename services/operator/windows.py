"""What was seen before: windows, rates and what a restart of the operator leaves of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from services.operator.views import History

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from services.operator.answer import TaskQueueStatus
    from services.operator.spec import TaskQueueSpec
    from services.operator.views import Demand, PodView

MANUAL_SECONDS: Final = 3600.0
"""How long a change of spec.scaling.replicas is a floor."""
START_SECONDS: Final = 20.0
"""What a pod takes to come up, as long as none was measured."""
_MINUTE: Final = 60.0
_SHORT: Final = 15.0
_LEAST_SPAN: Final = 5.0  # seconds apart that two samples of the backlog must be to tell a rate
_STARTS: Final = 20
_LONGEST: Final = 3600.0  # the longest window that a spec may ask for
_MOST_START: Final = 900.0


def restored(status: TaskQueueStatus, ordered: int, now: float, at: datetime) -> History:
    """Return the history of a queue that this process looks at for the first time.

    `ordered`: the Deployment's replicas; `now`: seconds on the monotonic clock; `at`: the time of day just now. What
    was wanted last counts as wanted now, so a restart neither shrinks a queue early nor lifts a drain under way.
    """

    def ago(then: datetime) -> float:
        return now - max(0.0, (at - then).total_seconds())

    wanted = status.desired_replicas if status.observed_generation else ordered
    history = History(proposals=((now, wanted),), last_busy=now)
    if status.last_scale:
        change = status.last_scale.to - status.last_scale.from_
        noted = ((ago(status.last_scale.time), abs(change)),)
        history = replace(history, ups=noted) if change > 0 else replace(history, downs=noted)
    if status.manual:
        since = status.manual.since
        history = replace(history, manual=status.manual.replicas, manual_since=ago(since) if since else None)
    return history


def remember(
    history: History, spec: TaskQueueSpec, demand: Demand | None, pods: tuple[PodView, ...], now: float
) -> History:
    """Return the history with what is seen now, and without what no window reaches any more."""
    busy = demand is None or bool(demand.running or (demand.queued and not demand.paused))
    backlog = [sample for sample in history.backlog if sample[0] > now - _MINUTE - _SHORT]
    if demand is not None and (not backlog or now - backlog[-1][0] >= 1.0):
        backlog.append((now, demand.queued + demand.running))
    told = spec.scaling.replicas
    # The first look is no change: nobody knows who wrote it and when.
    changed = history.manual is not None and history.manual != told
    seen = frozenset(pod.uid for pod in pods if pod.ready or pod.restarts or pod.uid in history.seen_ready)
    # What was ready before the first look tells nothing: `backlog` is empty then.
    started = [
        min(pod.age, _MOST_START)
        for pod in pods
        if pod.ready and not pod.restarts and pod.uid not in history.seen_ready and history.backlog
    ]
    return replace(
        history,
        proposals=tuple(seen for seen in history.proposals if seen[0] > now - _LONGEST),
        ups=tuple(step for step in history.ups if step[0] > now - _LONGEST),
        downs=tuple(step for step in history.downs if step[0] > now - _LONGEST),
        backlog=tuple(backlog),
        last_busy=now if busy or history.last_busy is None else history.last_busy,
        manual=told,
        manual_since=now if changed else history.manual_since,
        starts=(*history.starts, *started)[-_STARTS:],
        seen_ready=seen,
        restarts=tuple(_restarted(history, pods, now)),
    )


def calmed(history: History, pods: tuple[PodView, ...], now: float) -> tuple[PodView, ...]:
    """Return the pods with the time that has passed since a restart of their container was seen."""
    since = {uid: at for uid, _, at in history.restarts}
    return tuple(replace(pod, calm=now - since[pod.uid]) if pod.uid in since else pod for pod in pods)


def _restarted(history: History, pods: tuple[PodView, ...], now: float) -> Iterator[tuple[str, int, float]]:
    known = {(uid, times): at for uid, times, at in history.restarts}
    for pod in pods:
        if pod.restarts:
            yield pod.uid, pod.restarts, known.get((pod.uid, pod.restarts), now)


def propose(history: History, pods: int, now: float) -> History:
    """Return the history with a number of pods that is wanted now.

    Only a maximum is ever asked of these, so earlier ones that are not larger are forgotten.
    """
    larger = tuple(seen for seen in history.proposals if seen[1] > pods)
    return replace(history, proposals=(*larger, (now, pods)))


def arrivals(history: History, demand: Demand, now: float) -> float:
    """Return tasks that arrive per second: what ended plus what the backlog grew by, over 60 s or 15 s, the larger."""
    ended = demand.finished_minute / _MINUTE
    backlog = demand.queued + demand.running
    rates = [0.0]
    for window in (_MINUTE, _SHORT):
        samples = [sample for sample in history.backlog if sample[0] >= now - window - 1e-6]
        if samples and now - samples[0][0] >= _LEAST_SPAN:
            rates.append(ended + (backlog - samples[0][1]) / (now - samples[0][0]))
    return max(rates) if len(rates) > 1 else ended


def start_seconds(history: History) -> float:
    """Return how many seconds a pod takes to come up: the 90th percentile of the last ones."""
    starts = sorted(history.starts)
    return starts[min(len(starts) - 1, len(starts) * 9 // 10)] if starts else START_SECONDS


def within(steps: tuple[tuple[float, int], ...], seconds: float, now: float) -> int:
    """Return how many pods were added, or taken away, within the last seconds."""
    return sum(pods for at, pods in steps if at > now - seconds)


def manual_floor(history: History, now: float) -> tuple[int, float]:
    """Return the floor set by hand and for how many seconds it still holds; (0, 0.0) when there is none."""
    if history.manual is None or history.manual_since is None:
        return 0, 0.0
    left = history.manual_since + MANUAL_SECONDS - now
    return (history.manual, left) if left > 0 else (0, 0.0)
