"""Why a worker's pod died, read from the pod: for the attempts that it took with it.

A cause is noted when it is certain: a container that ended, a pod that is gone. A node that went silent is only a
suspicion, because its workers may well live: it is noted when their beats stand still, too.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from services.operator.objects import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.leadership import Term
    from core.pool import Tx
    from services.operator.cluster import Json

SILENT_SECONDS: Final = 7.0  # a beat this old, on a node that went silent, is a dead worker for our purposes
_REMEMBER: Final = 10_000
# What the condition DisruptionTarget of a pod gives as its reason.
DISRUPTIONS: Final = {
    "PreemptionByScheduler": ("Preempted", "preempted by a pod of higher priority"),
    "EvictionByEvictionAPI": ("Evicted", "evicted through the API, as by a drain of its node"),
    "DeletionByTaintManager": ("NodeLost", "its node could not be reached or was tainted, and the pod was removed"),
    "DeletionByPodGC": ("NodeLost", "its node is gone, and the pod was removed"),
    "TerminationByKubelet": ("Evicted", "ended by the kubelet: its node was short of a resource, or shut down"),
}
log = telemetry.get_logger("operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """Why a pod's processes ended. `before` tells those of one life of the container from those of a later one."""

    pod_uid: str
    before: datetime | None
    reason: str
    message: str
    certain: bool = True


def death_of(pod: Json, *, gone: bool = False) -> Death | None:
    """Return what `pod` says of the newest death in it, or None.

    `gone`: the pod is no more, and this is how it was last.
    """
    uid = pod["metadata"]["uid"]
    status = pod.get("status") or {}
    ended, restarted = _ending(status)
    disruption = _disruption(status)
    if ended is not None and ended.get("reason") == "OOMKilled":
        return _death(uid, "OOMKilled", "the container reached its memory limit", ended, restarted)
    if (ended is not None or gone or status.get("phase") == "Failed") and disruption:
        reason, words = disruption
        return Death(pod_uid=uid, before=None, reason=reason, message=words)
    if gone or (ended is not None and not restarted and pod["metadata"].get("deletionTimestamp")):
        return Death(pod_uid=uid, before=None, reason="Deleted", message="the pod was deleted")
    if ended is not None and ended.get("exitCode") != 0:
        code = ended.get("exitCode", "?")
        return _death(
            uid, ended.get("reason") or "Error", f"the container ended with exit code {code}", ended, restarted
        )
    if _silent_node(status):
        message = "its node does not report any more"
        return Death(pod_uid=uid, before=None, reason="NodeLost", message=message, certain=False)
    return None


def _death(uid: str, reason: str, message: str, ended: Json, restarted: str | None) -> Death:
    if restarted:
        return Death(pod_uid=uid, before=datetime.fromisoformat(restarted), reason=reason, message=message)
    # The end is given in whole seconds, rounded down.
    when = ended.get("finishedAt")
    before = datetime.fromisoformat(when) + timedelta(seconds=1) if when else None
    return Death(pod_uid=uid, before=before, reason=reason, message=message)


def _ending(status: Json) -> tuple[Json | None, str | None]:
    """The worker container's newest end, and when it was started again, if it was."""
    for container in status.get("containerStatuses") or []:
        if container.get("name") != CONTAINER:
            continue
        state = container.get("state") or {}
        if "terminated" in state:
            return state["terminated"], None
        last = (container.get("lastState") or {}).get("terminated")
        return last, (state.get("running") or {}).get("startedAt") if last else None
    return None, None


def _disruption(status: Json) -> tuple[str, str] | None:
    if status.get("reason") in {"Evicted", "Preempting", "NodeLost", "NodeShutdown", "Terminated"}:
        name = {"Preempting": "Preempted", "NodeLost": "NodeLost"}.get(status["reason"], "Evicted")
        return name, str(status.get("message") or status["reason"])
    for condition in status.get("conditions") or []:
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            cause = str(condition.get("reason") or "Disrupted")
            reason, words = DISRUPTIONS.get(cause, ("Evicted", cause))
            said = condition.get("message")
            return reason, f"{words}: {said}" if said else words
    return None


def _silent_node(status: Json) -> bool:
    """Tell whether the node controller took the pod's readiness, and not the kubelet: then two conditions differ."""
    said = {condition.get("type"): condition.get("status") for condition in status.get("conditions") or []}
    return said.get("Ready") in {"False", "Unknown"} and said.get("ContainersReady") == "True"


class DeathNotes:
    """Collects deaths from the watches, and writes each once."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[object, ...], Death] = {}
        self._noted: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def see(self, pod: Json, *, gone: bool = False) -> bool:
        """Look at a pod that changed; True when there is something to write."""
        death = death_of(pod, gone=gone)
        uid = pod["metadata"]["uid"]
        # A node that came back, or a certain cause: the suspicion is void.
        for key, waiting in list(self._waiting.items()):
            if waiting.pod_uid == uid and not waiting.certain:
                del self._waiting[key]
        if death is None:
            return False
        key = (death.pod_uid, death.before, death.reason)
        if key in self._noted:
            return False
        self._waiting[key] = death
        return death.certain

    def __len__(self) -> int:
        return len(self._waiting)

    async def write(self, term: Term, workers: Sequence[queue.PodWorker]) -> int:
        """Write what waits, in one transaction of the operator's; how many rows of workers it reached.

        A suspicion waits until the beats of its workers stand still. Raises Unavailable; then all of it waits.
        """
        ages = {worker.pod_uid: worker.beat_age for worker in workers}
        due = [
            (key, death)
            for key, death in self._waiting.items()
            if death.certain or ages.get(death.pod_uid, float("inf")) >= SILENT_SECONDS
        ]
        if not due:
            return 0
        reached = 0
        async with term.transaction() as tx:
            for _, death in due:
                reached += await self._one(tx, death)
        self._done(key for key, _ in due)
        return reached

    async def _one(self, tx: Tx, death: Death) -> int:
        found = await queue.note_death(
            tx, death.pod_uid, before=death.before, reason=death.reason, message=death.message
        )
        if found:
            log.info("noted a death", pod_uid=death.pod_uid, reason=death.reason, message=death.message)
        return found

    def _done(self, keys: Iterable[tuple[object, ...]]) -> None:
        for key in keys:
            self._waiting.pop(key, None)
            self._noted[key] = None
        while len(self._noted) > _REMEMBER:
            self._noted.popitem(last=False)
