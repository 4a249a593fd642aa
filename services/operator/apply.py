"""What the operator writes to the API server, one deed a function. None of them decides anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core.errors import Conflict, NotFound
from services.operator.cluster import BUDGETS, DEPLOYMENTS, MANAGER, PODS, SCALER, TASKQUEUES, Cluster, Json
from services.operator.objects import DELETION_COST, RELEASE_ANNOTATION, is_taskflows
from services.operator.spec import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.operator.views import Scale

COST: Final = "-1000"  # a hint to the ReplicaSet, beside readiness, which decides


async def deployment(cluster: Cluster, manifest: Json, live: Json | None) -> Json:
    """Apply a Deployment whose manifest has no `replicas`; a new one starts with none.

    `live` is the one that is there, read just now. Raises Invalid or Forbidden when the server refuses the template;
    nothing is changed then.
    """
    if live is None:
        manifest = {**manifest, "spec": {**manifest["spec"], "replicas": 0}}
    await cluster.apply(DEPLOYMENTS, manifest, dry=True)
    if live is not None and not _held_apart(live):
        await _hold_replicas(cluster, live)
    made = await cluster.apply(DEPLOYMENTS, manifest)
    return await _hold_replicas(cluster, made) if live is None else made


async def _hold_replicas(cluster: Cluster, live: Json) -> Json:
    """Let the scaler own `replicas` as it is: an apply that no longer names it would otherwise reset it to 1."""
    about = live["metadata"]
    claim = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": about["namespace"], "name": about["name"]},
        "spec": {"replicas": live["spec"].get("replicas", 0)},
    }
    return await cluster.apply(DEPLOYMENTS, claim, manager=SCALER)


def _held_apart(live: Json) -> bool:
    """Tell whether somebody other than our own apply owns `replicas`."""
    return any(
        "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in live["metadata"].get("managedFields") or []
        if (entry.get("manager"), entry.get("operation")) != (MANAGER, "Apply")
    )


async def budget(cluster: Cluster, manifest: Json) -> None:
    """Apply a PodDisruptionBudget."""
    await cluster.apply(BUDGETS, manifest)


async def scale(cluster: Cluster, namespace: str, name: str, change: Scale) -> None:
    """Write `replicas`, if the Deployment is still what the decision was made on. Raises Conflict when it is not."""
    wanted = {"metadata": {"resourceVersion": change.resource_version}, "spec": {"replicas": change.to}}
    await cluster.merge(DEPLOYMENTS, namespace, name, wanted, "scale", manager=SCALER)


async def mark(cluster: Cluster, namespace: str, pods: Iterable[str], *, cost: str | None) -> None:
    """Set the deletion cost of pods, or take it off; a pod that is gone needs none."""
    for pod in pods:
        try:
            await cluster.merge(PODS, namespace, pod, {"metadata": {"annotations": {DELETION_COST: cost}}})
        except NotFound:
            continue


async def finalizer(cluster: Cluster, namespace: str, name: str, uid: str, *, wanted: bool) -> Json | None:
    """Put our finalizer on a TaskQueue, or take it off; None when there is no such TaskQueue any more.

    Raises Conflict when somebody else wrote at the same time; others' finalizers stay.
    """
    try:
        found = await cluster.get(TASKQUEUES, namespace, name)
        about = found["metadata"]
        there: list[str] = about.get("finalizers") or []
        if about["uid"] != uid:
            return None
        if (FINALIZER in there) == wanted or (wanted and about.get("deletionTimestamp")):
            return found
        kept = [*there, FINALIZER] if wanted else [one for one in there if one != FINALIZER]
        patch = {"metadata": {"resourceVersion": about["resourceVersion"], "finalizers": kept}}
        return await cluster.merge(TASKQUEUES, namespace, name, patch)
    except NotFound:
        return None


async def claim(cluster: Cluster, namespace: str, name: str, uid: str, release: str) -> bool:
    """Write which release a TaskQueue belongs to, where it names none; True when it is `release`.

    Raises Conflict when somebody else wrote at the same time.
    """
    try:
        about = (await cluster.get(TASKQUEUES, namespace, name))["metadata"]
        named = (about.get("annotations") or {}).get(RELEASE_ANNOTATION)
        if about["uid"] != uid or named:
            return bool(about["uid"] == uid and named == release)
        wanted = {"resourceVersion": about["resourceVersion"], "annotations": {RELEASE_ANNOTATION: release}}
        await cluster.merge(TASKQUEUES, namespace, name, {"metadata": wanted})
    except NotFound:
        return False
    return True


async def disown(cluster: Cluster, namespace: str, name: str, uid: str) -> None:
    """Take a TaskQueue's ownership off its Deployment and budget, so that they outlive it. Raises Conflict."""
    for kind in (DEPLOYMENTS, BUDGETS):
        try:
            about = (await cluster.get(kind, namespace, name))["metadata"]
            owners: list[dict[str, Any]] = about.get("ownerReferences") or []
            kept = [owner for owner in owners if owner["uid"] != uid]
            if kept != owners:
                patch = {"metadata": {"resourceVersion": about["resourceVersion"], "ownerReferences": kept}}
                await cluster.merge(kind, namespace, name, patch)
        except NotFound:
            continue


async def status(cluster: Cluster, namespace: str, name: str, new: Json) -> Json | None:
    """Write a TaskQueue's status; None when there is no such TaskQueue any more."""
    try:
        return await cluster.merge(TASKQUEUES, namespace, name, {"status": new}, "status")
    except NotFound:
        return None


def refuse_foreign(live: Json | None, uid: str) -> None:
    """Raise Conflict when the Deployment of our name is not ours to change."""
    if live is None:
        return
    about = live["metadata"]
    if not is_taskflows(live):
        raise Conflict(f"there is a Deployment {about['name']} already, and it is not TaskFlow's")
    owner = next((one for one in about.get("ownerReferences") or [] if one.get("controller")), None)
    if owner and owner["uid"] != uid:
        raise Conflict(f"the Deployment {about['name']} belongs to {owner['kind']} {owner['name']} ({owner['uid']})")
