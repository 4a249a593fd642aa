"""From what the API server and PostgreSQL said to what the planner looks at. Plain translation, nothing is decided."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from services.operator.objects import CONTAINER, DELETION_COST, HASH_LABEL, label_of, rolling, surge_of
from services.operator.views import DeploymentView, PodView, PodWorkerView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from core.queue_manager import PodWorker
    from services.operator.cluster import Json

_ENDED = frozenset({"Failed", "Succeeded"})


def workers_by_pod(workers: Iterable[PodWorker]) -> dict[str, tuple[PodWorkerView, ...]]:
    """Sort the live worker processes by the uid of their pod."""
    found: dict[str, tuple[PodWorkerView, ...]] = {}
    for worker in workers:
        view = PodWorkerView(id=worker.worker, state=worker.state, running=worker.running)
        found[worker.pod_uid] = (*found.get(worker.pod_uid, ()), view)
    return found


def pod_views(
    pods: Sequence[Json], workers: Mapping[str, tuple[PodWorkerView, ...]], at: datetime
) -> tuple[PodView, ...]:
    """Look at a TaskQueue's pods; those that have ended count for nothing."""
    return tuple(
        _pod_view(pod, workers.get(pod["metadata"]["uid"], ()), at)
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
        if (pod.get("status") or {}).get("phase") not in _ENDED
    )


def _pod_view(pod: Json, workers: tuple[PodWorkerView, ...], at: datetime) -> PodView:
    about, status = pod["metadata"], pod.get("status") or {}
    said = {one.get("type"): one.get("status") for one in status.get("conditions") or []}
    container: Json = next((one for one in status.get("containerStatuses") or [] if one.get("name") == CONTAINER), {})
    return PodView(
        name=about["name"],
        uid=about["uid"],
        ready=said.get("Ready") == "True",
        running="running" in (container.get("state") or {}),
        scheduled=bool((pod.get("spec") or {}).get("nodeName")),
        deleting=bool(about.get("deletionTimestamp")),
        waiting_reason=_waiting(status),
        restarts=int(container.get("restartCount") or 0),
        marked=_negative((about.get("annotations") or {}).get(DELETION_COST, "")),
        age=_age(about.get("creationTimestamp"), at),
        workers=workers,
        template=(about.get("labels") or {}).get(HASH_LABEL, ""),
    )


def _waiting(status: Json) -> str:
    """Why a container waits: the worker's own, else an init container's."""
    main = [one for one in status.get("containerStatuses") or [] if one.get("name") == CONTAINER]
    early = status.get("initContainerStatuses") or []
    reasons = [((one.get("state") or {}).get("waiting") or {}).get("reason") or "" for one in [*early, *main]]
    return next((reason for reason in reasons if reason and reason != "PodInitializing"), "")


def _negative(text: str) -> bool:
    return text.startswith("-")


def _age(created: str | None, at: datetime) -> float:
    return max(0.0, (at - datetime.fromisoformat(created)).total_seconds()) if created else 0.0


def deployment_view(found: Json | None) -> DeploymentView | None:
    """Look at the Deployment of a TaskQueue, if there is one."""
    if found is None:
        return None
    about, status = found["metadata"], found.get("status") or {}
    existing = int(status.get("replicas") or 0)
    replaced = int(status.get("updatedReplicas") or 0)
    behind = int(status.get("observedGeneration") or 0) < int(about.get("generation") or 0)
    return DeploymentView(
        replicas=_replicas(found),
        resource_version=about["resourceVersion"],
        rolling=rolling(found),
        replacing=not behind and replaced < existing,
        existing=existing,
        surge=surge_of(found),
        ready_replicas=int(status.get("readyReplicas") or 0),
        template=label_of(found),
        failure=_failure(status),
    )


def _replicas(found: Json) -> int:
    count = (found.get("spec") or {}).get("replicas")
    return 1 if count is None else int(count)


def _failure(status: Json) -> str:
    """Why no pod can be made (a quota, Pod Security), in the API server's words; "" when it can."""
    for one in status.get("conditions") or []:
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            return str(one.get("message") or one.get("reason") or "")
    return ""
