"""What to do about a TaskQueue: observed facts in, a Plan out. Reads no clock and does nothing.

No task is ever interrupted by a scale-down. A ReplicaSet chooses its own victims: first pods that do not run yet, then
those that are not ready, then those of the lowest deletion cost. So `replicas` are lowered only by the number of pods
that hold nothing, can take nothing and are ahead in that order:

- a pod is *removable* when its worker is cordoned, holds nothing and is not ready, or when its container does not run
  and nobody registered from it. A cordon waits for claims that are under way, so what PostgreSQL says after it stays
  true; that the pod is not ready, for whatever reason, is only asked for its place in the order;
- after a restart of its container a pod is not removable for a minute: a new process may be about to register;
- a removable pod is marked first, and counts from the next tick on: by then the ReplicaSet, too, knows that it is not
  ready;
- while any other pod is not ready (it starts, or its probe fails), while a rollout goes on, or while the ReplicaSet is
  still busy with an earlier change, nothing is lowered;
- a worker is not uncordoned while more pods are there than ordered: it may be the one that is about to go. A tick that
  uncordons lowers nothing;
- while pods are replaced by those of a new template, only old ones go: `rollouts` says how. Whom the rollout itself
  takes away has drainSeconds to end.

What is left to the drain of a pod that is told to go: a container that starts, registers and claims between being seen
waiting and being taken away.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from services.operator import report, rollouts, scaling, trials, victims, windows
from services.operator.spec import holds_deletion
from services.operator.views import Desired, Plan, Scale

if TYPE_CHECKING:
    from datetime import datetime

    from services.operator.spec import TaskQueueSpec
    from services.operator.victims import Victims
    from services.operator.views import History, QueueView


def plan(spec: TaskQueueSpec, view: QueueView, history: History, *, now: float, at: datetime) -> Plan:
    """Return what to do now.

    `history`: `Plan.history` of the last tick, at first `windows.restored(...)`. `now`: seconds on the monotonic clock;
    `at`: the time of day, for what people read.
    """
    ordered = view.deployment.replicas if view.deployment else 0
    history = windows.remember(history, spec, view.demand, view.pods, now)
    view = replace(view, pods=windows.calmed(history, view.pods, now))
    history = trials.remember(history, view, now)
    trying = trials.untried(view, history, now)
    if trying:
        history = replace(history, last_busy=now)
    wish = _wish(spec, view, ordered, history, now, trying=trying)
    chosen = (rollouts if rollouts.ongoing(view) else victims).choose(view, wish.replicas, ordered)
    if not view.workers_known or _foreign(view):
        chosen = victims.Victims(excess=chosen.excess)
    orphan = view.deleting and spec.deletion_policy == "Orphan"
    held = view.deleting and holds_deletion(spec)
    gone = not ordered and not victims.active(view.pods)
    scale = _scale(view, wish, chosen, ordered)
    made = Plan(
        desired=wish,
        cordon=chosen.cordon,
        uncordon=chosen.uncordon,
        mark=chosen.mark,
        unmark=chosen.unmark,
        scale=scale,
        history=windows.propose(history, wish.wanted, now),
        soon=bool(chosen.pods or chosen.uncordon or chosen.unmark or chosen.excess or scale),
        purge=view.deleting and spec.deletion_policy == "Purge",
        orphan=orphan,
        trying=trying,
        finalize=(orphan and not chosen.uncordon) or (held and gone),
    )
    return replace(made, status=report.status(spec, view, made, now=now, at=at))


def _wish(spec: TaskQueueSpec, view: QueueView, ordered: int, history: History, now: float, *, trying: bool) -> Desired:
    if view.deleting and spec.deletion_policy == "Orphan":
        return Desired(replicas=ordered, wanted=ordered, reason="the TaskQueue goes, its workers stay")
    if view.deleting and not holds_deletion(spec):
        # Kubernetes ends the workers together with their owner, or leaves them where somebody deleted the TaskQueue
        # with --cascade=orphan. Both are lost when the operator takes pods away meanwhile.
        return Desired(replicas=ordered, wanted=ordered, reason="the TaskQueue goes, Kubernetes ends its workers")
    if view.deleting:
        return Desired(replicas=0, reason="the TaskQueue is being deleted")
    if view.conflict:
        return Desired(replicas=ordered, wanted=ordered, reason=view.conflict, limited_by="conflict")
    wish = scaling.desired(spec, view.demand, ordered, history, now, trying=trying)
    pods = victims.active(view.pods)
    failing = sum(victims.broken(pod) for pod in pods)
    if wish.replicas > ordered and failing * 2 >= len(pods) > 0:
        reason = f"{wish.reason}; {failing} of {len(pods)} pods do not come up, so no more are ordered"
        return Desired(replicas=ordered, wanted=wish.wanted, reason=reason, limited_by="broken")
    return wish


def _foreign(view: QueueView) -> bool:
    """Tell whether somebody else decides here: nothing is touched then, except to let go of what is deleted."""
    return bool(view.conflict) and not view.deleting


def _scale(view: QueueView, wish: Desired, chosen: Victims, ordered: int) -> Scale | None:
    deployment = view.deployment
    if deployment is None or _foreign(view):
        return None
    to = wish.replicas
    if to < ordered:
        way = rollouts if rollouts.ongoing(view) else victims
        to = way.lowest(view, chosen, to, ordered) if view.workers_known else ordered
    if to == ordered:
        return None
    return Scale(from_=ordered, to=to, reason=wish.reason, resource_version=deployment.resource_version)
