"""Which pods shall go, and how far `replicas` may be lowered without touching any other. `plan` says why it is safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.operator.views import BROKEN

if TYPE_CHECKING:
    from uuid import UUID

    from services.operator.views import PodView, QueueView

STUCK_SECONDS: Final = 600.0
"""A pod that runs for so long and never registered a worker is not going to."""
CALM_SECONDS: Final = 60.0
"""After a restart of its container a pod may, for so long, hold a process that nobody knows of yet."""
_RESTARTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """The pods that shall go, what it takes to get there, and what the ReplicaSet has not done yet.

    `going`: how many of them are ready to be taken away. `excess`: pods beyond what is ordered; negative: pods that
    are not there yet.
    """

    pods: tuple[PodView, ...] = ()
    cordon: tuple[UUID, ...] = ()
    uncordon: tuple[UUID, ...] = ()
    mark: tuple[str, ...] = ()
    unmark: tuple[str, ...] = ()
    going: int = 0
    excess: int = 0


def active(pods: tuple[PodView, ...]) -> list[PodView]:
    """Return the pods that a ReplicaSet counts."""
    return [pod for pod in pods if not pod.deleting]


def broken(pod: PodView) -> bool:
    """Tell whether a pod does not come up by itself."""
    return not pod.deleting and (pod.waiting_reason in BROKEN or (pod.restarts >= _RESTARTS and not pod.ready))


def busy(pod: PodView) -> bool:
    """Tell whether a pod runs a task."""
    return any(worker.running for worker in pod.workers)


def cordoned(pod: PodView) -> bool:
    """Tell whether a pod takes nothing more."""
    return bool(pod.workers) and all(worker.state == "cordoned" for worker in pod.workers)


def removable(pod: PodView) -> bool:
    """Tell whether a pod holds nothing, can take nothing, and comes before every ready pod in a ReplicaSet's order."""
    if pod.ready or busy(pod):
        return False
    if pod.workers:
        # The cordon may be that of the process before: its row stays until it is declared dead.
        return cordoned(pod) and (not pod.running or pod.calm >= CALM_SECONDS)
    return not pod.running or min(pod.age, pod.calm) > STUCK_SECONDS


def choose(view: QueueView, target: int, ordered: int) -> Victims:
    """Return which pods shall go so that `target` are left, where `ordered` have been asked for."""
    pods = active(view.pods)
    excess = len(pods) - ordered
    # An idle worker in place of a busy one, but not while tasks wait: then idle is a moment between two tasks, and
    # going after such moments would never come to an end.
    swap = view.demand is not None and not view.demand.queued
    ranked = sorted(pods, key=lambda pod: place(pod, swap=swap))
    count = max(0, len(pods) - target)
    chosen, others = ranked[:count], ranked[count:]
    ready_to_go = {pod.uid for pod in chosen if removable(pod)}
    return Victims(
        pods=tuple(chosen),
        cordon=tuple(worker.id for pod in chosen for worker in pod.workers if worker.state == "alive"),
        # While there are more than ordered, a cordoned worker may be the one that is going this very moment.
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
    pods = active(view.pods)
    deployment = view.deployment
    if deployment is None or target >= ordered or victims.uncordon:
        return ordered
    if not target and pods and all(removable(pod) and pod.marked for pod in pods):
        return 0  # every pod may go, so whatever order they go in is right
    missing = max(0, -victims.excess)
    unsettled = victims.excess > 0 or deployment.rolling or (missing and deployment.existing != len(pods))
    # A pod that is not ready goes before those that are, so each of these must be one that may go.
    at_risk = any(not pod.ready and not removable(pod) for pod in pods)
    return ordered if unsettled or at_risk else max(target, ordered - missing - victims.going)


def place(pod: PodView, *, swap: bool) -> tuple[int, int, float, str]:
    """Return the place of a pod among those to go: first what the ReplicaSet takes first, last what is busy.

    `swap`: an idle worker may go in place of a busy one that is cordoned already.
    """
    held = sum(worker.running for worker in pod.workers)
    if removable(pod):
        first = 1 if pod.workers else 0
    elif cordoned(pod) and (not held or not swap):
        first = 2
    elif not pod.workers:
        first = 3  # it starts: colder than any that is idle
    elif not held:
        first = 4
    else:
        first = 5 if cordoned(pod) else 6
    return first, held, pod.age, pod.name
