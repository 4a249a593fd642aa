"""The way down while pods of two templates are there: which old pods go, and how far `replicas` may be lowered.

A Deployment that replaces its pods keeps `replicas` of them ready and has `maxSurge` beyond. When the new pods do not
come up (no image, no quota), the old ones stay, and would stay for ever when fewer are wanted. What the Deployment does
when `replicas` are lowered then:

- the sum of all its ReplicaSets falls by as much, because `maxSurge` is a number and no percentage (`objects.surge`).
  It shares that out in proportion: a step of one hits the largest ReplicaSet, the older one of two that are alike;
- then it takes old pods that are not ready away, as long as old ones and ready new ones are more than `replicas`, and
  fills up with new ones.

So old pods are chosen and cordoned as ever, from the largest old ReplicaSet first, and `replicas` fall only when

- the Deployment has done what it was told before: old pods and ready new ones are no more than `replicas`, and no
  ReplicaSet has more pods than it shall have;
- no old pod is not ready for another reason than that it may go;
- the step is one, of a pod of the largest old ReplicaSet. It may be as many as may go when there is one old ReplicaSet
  and no new pod lives: whichever way the Deployment shares that out, it finds nothing that runs a task.

When a step of one hits the new ReplicaSet, because that is the largest by now, it loses a pod that is not ready or not
there: it has at least `maxSurge` of those as long as the Deployment is not done.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from services.operator.victims import Victims, active, cordoned, place, removable

if TYPE_CHECKING:
    from services.operator.views import DeploymentView, PodView, QueueView


def ongoing(view: QueueView) -> bool:
    """Tell whether pods of the present template are taking the place of others."""
    deployment = view.deployment
    return deployment is not None and (deployment.replacing or bool(_old(view, deployment)))


def choose(view: QueueView, target: int, ordered: int) -> Victims:
    """Return which pods shall go so that `target` are left, where `ordered` have been asked for: old ones first."""
    pods, present = active(view.pods), view.deployment.template if view.deployment else ""
    old = [pod for pod in pods if pod.template != present]
    new = [pod for pod in pods if pod.template == present]
    living = sum(_lives(pod) for pod in new)
    # First those of a template of which no pod serves anybody: they are left from a rollout that was stuck before.
    serving = {pod.template for pod in old if _lives(pod)}
    count = max(0, len(old) + living - target)
    # Where an older operator put no label on the pods, old and new ones look alike: nobody goes but on the way to none.
    if not target:
        count = len(pods)
    elif not old:
        count = 0
    swap = view.demand is not None and not view.demand.queued
    order = {template: rank for rank, (template, _) in enumerate(_sizes(old, view.deployment).most_common())}
    ranked = sorted(old, key=lambda pod: (pod.template in serving, order.get(pod.template, 0), place(pod, swap=swap)))
    ranked += sorted(new, key=lambda pod: place(pod, swap=swap))
    chosen, others = ranked[:count], ranked[count:]
    excess = len(old) + sum(pod.ready for pod in new) - ordered
    ready_to_go = {pod.uid for pod in chosen if removable(pod)}
    return Victims(
        pods=tuple(chosen),
        cordon=tuple(worker.id for pod in chosen for worker in pod.workers if worker.state == "alive"),
        uncordon=tuple(
            worker.id for pod in others for worker in pod.workers if worker.state == "cordoned" and excess <= 0
        ),
        mark=tuple(pod.name for pod in chosen if pod.uid in ready_to_go and not pod.marked),
        unmark=tuple(pod.name for pod in pods if pod.marked and pod.uid not in ready_to_go and excess <= 0),
        going=sum(pod.marked for pod in chosen if pod.uid in ready_to_go),
        excess=excess,
    )


def lowest(view: QueueView, victims: Victims, target: int, ordered: int) -> int:
    """Return the number of replicas that may be ordered now on the way down to `target`."""
    pods, deployment = active(view.pods), view.deployment
    if deployment is None or target >= ordered or victims.uncordon:
        return ordered
    if not target and pods and all(removable(pod) and pod.marked for pod in pods):
        return 0
    old = _old(view, deployment)
    if not old or not deployment.replacing or not _settled(pods, victims, deployment):
        return ordered
    if any(not pod.ready and not removable(pod) for pod in old):
        return ordered
    return max(target, ordered - _step(pods, victims, deployment))


def _settled(pods: list[PodView], victims: Victims, deployment: DeploymentView) -> bool:
    """Tell whether the Deployment and its ReplicaSets have nothing more to take away.

    The Deployment was read after the pods: where they disagree, it has gone on meanwhile.
    """
    if victims.excess > 0 or deployment.ready_replicas != sum(pod.ready for pod in pods):
        return False
    counted, sizes = Counter(pod.template for pod in pods), deployment.sizes
    return sizes is None or all(number <= sizes.get(template, 0) for template, number in counted.items())


def _step(pods: list[PodView], victims: Victims, deployment: DeploymentView) -> int:
    """Return how many pods may go at once: none, one, or all that are ready to."""
    present = deployment.template
    sizes = _sizes(pods, deployment)
    old = Counter({template: size for template, size in sizes.items() if template != present and size})
    if not old or sizes.total() > deployment.replicas + deployment.surge:
        return 0  # the Deployment would take away more than the step
    [(largest, size), *others] = old.most_common()
    going = sum(pod.marked and removable(pod) for pod in victims.pods if pod.template == largest)
    going += max(0, size - sum(pod.template == largest for pod in pods))  # those that are not there
    new = [pod for pod in pods if pod.template == present]
    starting = any(not pod.ready and not removable(pod) for pod in new)
    if not others and not starting and not any(_lives(pod) for pod in new):
        return going
    if starting and size < sizes[present]:
        return 0
    return min(going, 1)


def _sizes(pods: list[PodView], deployment: DeploymentView | None) -> Counter[str]:
    """How many pods each template shall have; the older one comes first among those that are alike."""
    if deployment is None or deployment.sizes is None:
        return Counter(pod.template for pod in pods)
    return Counter(deployment.sizes)


def _old(view: QueueView, deployment: DeploymentView) -> list[PodView]:
    return [pod for pod in active(view.pods) if pod.template != deployment.template]


def _lives(pod: PodView) -> bool:
    """Tell whether a pod takes tasks, or would if it were not cordoned."""
    return pod.ready or cordoned(pod)
