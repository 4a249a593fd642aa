"""The conditions of a TaskQueue, in the form that all of Kubernetes uses. Says what is; decides nothing.

`Ready` and `Progressing` are always there. The others name what is wrong, or what somebody asked for, and are there
from the first time that they hold. `lastTransitionTime` moves only when a status flips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.operator import victims, windows
from services.operator.answer import Condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from services.operator.answer import ConditionStatus
    from services.operator.spec import TaskQueueSpec
    from services.operator.views import Plan, QueueView

NODE_SECONDS: Final = 60.0
"""A pod without a node for so long is worth a word."""
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Fact:
    """Whether something holds, why in one word, and why in a sentence."""

    holds: bool
    reason: str
    message: str = ""


def facts(spec: TaskQueueSpec, view: QueueView, plan: Plan) -> dict[str, Fact]:
    """Return what is to be said about a TaskQueue, by the type of the condition, what matters most first."""
    found = {
        "TemplateInvalid": Fact(
            bool(view.problems), "Refused" if view.problems else "Accepted", " ".join(view.problems)
        ),
        "Conflict": Fact(bool(view.conflict), "TakenByAnother" if view.conflict else "Free", view.conflict),
        "WorkersFailing": _failing(view),
        "DepthUnknown": _unknown(view),
        "TargetUnreachable": _unreachable(spec, view, plan),
        "UnknownTypes": _unknown_types(view, plan),
        "Paused": _paused(view),
    }
    return {"Ready": _ready(view, plan), "Progressing": _progressing(view, plan), **found}


def wrong(found: Mapping[str, Fact]) -> Fact | None:
    """Return what somebody must mend before this TaskQueue works as it says; None when nothing is."""
    held = (found[name] for name in ("TemplateInvalid", "Conflict", "WorkersFailing", "DepthUnknown"))
    return next((fact for fact in held if fact.holds), None)


def merged(
    before: Iterable[Condition], found: Mapping[str, Fact], *, generation: int, at: datetime
) -> tuple[Condition, ...]:
    """Return the conditions to be written: `before` brought to what was found."""
    old = {condition.type: condition for condition in before}
    made = []
    for name, fact in found.items():
        if not fact.holds and name not in old and name not in {"Ready", "Progressing"}:
            continue
        status: ConditionStatus = "True" if fact.holds else "False"
        known = old.get(name)
        made.append(
            Condition(
                type=name,
                status=status,
                reason=fact.reason,
                message=fact.message[:2000],
                last_transition_time=known.last_transition_time if known and known.status == status else at,
                observed_generation=generation,
            )
        )
    # A newer operator may have written more: what this one does not know, it leaves.
    return (*made, *(condition for name, condition in old.items() if name not in found))


def takers(view: QueueView) -> int:
    """Return how many pods take tasks now."""
    return sum(pod.ready and not victims.cordoned(pod) for pod in victims.active(view.pods))


def _ready(view: QueueView, plan: Plan) -> Fact:
    have, want = takers(view), plan.desired.replicas
    if view.deleting:
        return Fact(holds=False, reason="Deleting", message="The TaskQueue is being deleted.")
    if view.conflict:
        return Fact(holds=False, reason="Conflict", message=view.conflict)
    if view.problems:
        return Fact(holds=False, reason="TemplateInvalid", message=" ".join(view.problems))
    if not view.settings_applied:
        return Fact(holds=False, reason="SettingsPending", message="The settings have not reached PostgreSQL yet.")
    if view.deployment is None:
        return Fact(holds=False, reason="DeploymentPending", message="The Deployment has not been made yet.")
    if have < want:
        return Fact(holds=False, reason="PodsPending", message=f"{have} of {want} pods take tasks.")
    if not want:
        return Fact(holds=True, reason="Idle", message="No pod is wanted: there is nothing to do.")
    return Fact(holds=True, reason="PodsReady", message=f"{have} pods take tasks, {want} are wanted.")


def _progressing(view: QueueView, plan: Plan) -> Fact:
    pods, want = victims.active(view.pods), plan.desired.replicas
    ordered = view.deployment.replicas if view.deployment else 0
    if view.deployment is not None and view.deployment.rolling:
        return Fact(holds=True, reason="RollingOut", message="Pods are being replaced by those of a new template.")
    if want > ordered or (ordered and takers(view) < min(want, ordered)):
        return Fact(holds=True, reason="ScalingUp", message=f"{takers(view)} of {want} pods take tasks.")
    if want < max(ordered, len(pods)):
        working = sum(victims.busy(pod) for pod in pods if victims.cordoned(pod))
        waits = f"; {working} of those that go still run tasks" if working else ""
        return Fact(holds=True, reason="ScalingDown", message=f"From {max(ordered, len(pods))} to {want} pods{waits}.")
    return Fact(holds=False, reason="Settled", message=plan.desired.reason)


def _failing(view: QueueView) -> Fact:
    pods = victims.active(view.pods)
    failing = [pod for pod in pods if victims.broken(pod)]
    homeless = [pod for pod in pods if not pod.scheduled and pod.age > NODE_SECONDS]
    if failing:
        names = ", ".join(
            f"{pod.name} ({pod.waiting_reason or f'{pod.restarts} restarts'})" for pod in failing[:_SHOWN]
        )
        reason = failing[0].waiting_reason or "CrashLoopBackOff"
        look = f"See kubectl describe pod {failing[0].name}."
        message = f"{len(failing)} of {len(pods)} pods do not come up: {names}. {look}"
        return Fact(holds=True, reason=reason, message=message)
    if view.deployment is not None and view.deployment.failure:
        return Fact(holds=True, reason="PodsRefused", message=f"No pod can be made: {view.deployment.failure}")
    if homeless:
        message = f"{len(homeless)} of {len(pods)} pods find no node. See kubectl describe pod {homeless[0].name}."
        return Fact(holds=True, reason="Unschedulable", message=message)
    return Fact(holds=False, reason="PodsComeUp")


def _unknown(view: QueueView) -> Fact:
    if view.demand is not None and view.workers_known:
        return Fact(holds=False, reason="Counted")
    message = "The tasks of the queue could not be counted. Nothing is scaled by them until they can be."
    return Fact(holds=True, reason="DatabaseUnreachable", message=message)


def _unreachable(spec: TaskQueueSpec, view: QueueView, plan: Plan) -> Fact:
    demand, wait = view.demand, spec.scaling.target_wait_seconds
    if spec.scaling.mode != "WaitTime" or demand is None or demand.paused:
        return Fact(holds=False, reason="NoTarget")
    start = windows.start_seconds(plan.history)
    oldest = demand.oldest_queued_seconds or 0.0
    if plan.desired.limited_by in {"max", "concurrency"} and oldest > wait:
        message = (
            f"A task waits {oldest:.0f} s, the target is {wait} s, and no more pods may be had: {plan.desired.reason}."
        )
        return Fact(holds=True, reason="Bounded", message=message)
    if start > wait and not spec.scaling.min_replicas:
        message = (
            f"A pod takes about {start:.0f} s to come up, longer than targetWaitSeconds ({wait}): the first tasks "
            "after a pause wait longer. Set minReplicas to 1 or more."
        )
        return Fact(holds=True, reason="PodStart", message=message)
    return Fact(holds=False, reason="Reachable")


def _unknown_types(view: QueueView, plan: Plan) -> Fact:
    if view.demand is None or not view.demand.unknown:
        return Fact(holds=False, reason="AllKnown")
    names = ", ".join(view.demand.unknown_types)
    about = "at least " if view.demand.capped else ""
    rest = (
        "One worker is started to find out whether it runs them."
        if plan.trying
        else "No worker is started for them. Roll out an image that has these types, or cancel the tasks."
    )
    message = f"{about}{view.demand.unknown} waiting tasks are of types that no worker announced: {names}. {rest}"
    return Fact(holds=True, reason="NoWorkerRunsThem", message=message[:1].upper() + message[1:])


def _paused(view: QueueView) -> Fact:
    if view.demand is None or not view.demand.paused:
        return Fact(holds=False, reason="NotPaused")
    return Fact(
        holds=True, reason="Paused", message="No task of this queue starts. Resume it by REST or by spec.paused."
    )
