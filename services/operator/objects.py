"""What the operator makes of a TaskQueue: the manifests of its Deployment and its PodDisruptionBudget.

A manifest names all that is ours, for server-side apply, and nothing else. `replicas` is never in it: only the scaling
loop writes that. Nothing in the pod template depends on TaskFlow's version, the epoch or worker.concurrency (which
reaches running workers through PostgreSQL), so that none of these replaces running pods.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from services.operator.merging import merge
from services.operator.spec import GROUP, KIND, VERSION, queue_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.operator.spec import TaskQueueSpec

Json = dict[str, Any]
QUEUE_LABEL: Final = f"{GROUP}/queue"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
HASH_ANNOTATION: Final = f"{GROUP}/template-hash"
HASH_LABEL: Final = HASH_ANNOTATION
"""The same on each pod: which template it was made from. `labelled` says when it is there."""
RELEASE_ANNOTATION: Final = f"{GROUP}/release"
INSTANCE: Final = "app.kubernetes.io/instance"
EPOCH_ANNOTATION: Final = f"{GROUP}/epoch"
DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
CONTAINER: Final = "worker"
PROBES: Final = "probes"
PORT: Final = 8081
GRACE_SECONDS: Final = 30
"""What a pod has beyond its drain to give tasks back and say good-bye."""
OWN_ENV: Final = (
    "TASKFLOW_WORKER_QUEUES",
    "TASKFLOW_WORKER_CHILDREN",
    "TASKFLOW_WORKER_DRAIN_SECONDS",
    "TASKFLOW_METRICS_PORT",
    "TASKFLOW_POD_NAME",
    "TASKFLOW_POD_UID",
    "TASKFLOW_NODE_NAME",
    "TASKFLOW_NAMESPACE",
    "TASKFLOW_POD_TEMPLATE",
)
"""What the operator sets in the worker's container, whatever else says otherwise."""
_DOWNWARD: Final = {
    "TASKFLOW_POD_NAME": "metadata.name",
    "TASKFLOW_POD_UID": "metadata.uid",
    "TASKFLOW_NODE_NAME": "spec.nodeName",
    "TASKFLOW_NAMESPACE": "metadata.namespace",
}
OWN_FIELDS: Final = ("readinessProbe", "livenessProbe", "startupProbe")


def name_of(taskqueue: str) -> str:
    """Return the name of the Deployment and of the PodDisruptionBudget of a TaskQueue."""
    return f"taskflow-{taskqueue}"


def selector(taskqueue: str) -> dict[str, str]:
    """Return the labels by which its pods are found. A Deployment's selector cannot be changed: neither may these."""
    return {"app.kubernetes.io/name": "taskflow", "app.kubernetes.io/component": "worker", QUEUE_LABEL: taskqueue}


def labels(taskqueue: str, instance: str) -> dict[str, str]:
    """Return what every object of a TaskQueue carries; `instance` is the Helm release, "" when there is none."""
    release = {INSTANCE: instance} if instance else {}
    return {**selector(taskqueue), **release, MANAGED_BY: "taskflow"}


def pod_template(
    spec: TaskQueueSpec, name: str, *, fragment: Mapping[str, Any], image: str = "", instance: str = ""
) -> Json:
    """Return the pod template of TaskQueue `name`: the chart's fragment, the TaskQueue's own over it, ours over both.

    `image` is the worker's when neither of the two names one. The TaskQueue's template must have passed
    `policy.problems`. What a container does not say of its security is set as Pod Security `restricted` wants it.
    """
    made = merge(fragment, spec.worker.template)
    account = fragment.get("spec", {}).get("serviceAccountName")
    fixed: Json = {
        "metadata": {"labels": labels(name, instance)},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": spec.worker.drain_seconds + GRACE_SECONDS,
            "containers": [_worker(queue_name(spec, name), spec.worker.drain_seconds)],
            **({"serviceAccountName": account} if account else {}),
        },
    }
    made = merge(made, fixed)
    made["metadata"].pop("name", None)
    pod = made["spec"]
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        **pod.get("securityContext", {}),
    }
    for group in ("initContainers", "containers"):
        pod[group] = [_hardened(container) for container in pod.get(group, [])]
    if not pod["initContainers"]:
        del pod["initContainers"]
    for container in pod["containers"]:
        if container["name"] == CONTAINER and image:
            container.setdefault("image", image)
    return made


def is_taskflows(live: Mapping[str, Any]) -> bool:
    """Tell whether an operator made this object."""
    return (live["metadata"].get("labels") or {}).get(MANAGED_BY) == "taskflow"


def labelled(template: Json) -> Json:
    """Return the template with its own hash as a label, and as a variable that the worker tells when it registers."""
    path = f"metadata.labels['{HASH_LABEL}']"
    worker = {
        "name": CONTAINER,
        "env": [{"name": "TASKFLOW_POD_TEMPLATE", "valueFrom": {"fieldRef": {"fieldPath": path}}}],
    }
    return merge(
        template,
        {"metadata": {"labels": {HASH_LABEL: template_hash(template)}}, "spec": {"containers": [worker]}},
    )


def label_of(deployment: Mapping[str, Any]) -> str:
    """Return the hash that the pods of a Deployment's template carry; "" when they carry none."""
    template = (deployment.get("spec") or {}).get("template") or {}
    return str(((template.get("metadata") or {}).get("labels") or {}).get(HASH_LABEL) or "")


def deployment(
    spec: TaskQueueSpec, *, name: str, namespace: str, uid: str, template: Json, epoch: int, instance: str = ""
) -> Json:
    """Return the Deployment of TaskQueue `name`; `template` is what `pod_template` returned, its label comes last.

    `epoch`, the operator's term, is an annotation on purpose: when a new operator applies it, the resourceVersion
    moves on, and whatever its predecessor still sends about replicas is refused. A Deployment that is made from this
    manifest gets one replica by default: who makes it has to give it 0.
    """
    notes = {HASH_ANNOTATION: template_hash(template), EPOCH_ANNOTATION: str(epoch)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**_about(spec, name, namespace, uid, instance), "annotations": notes},
        "spec": {
            "selector": {"matchLabels": selector(name)},
            "revisionHistoryLimit": 3,
            # A new pod first, then an old one goes: what runs has drainSeconds to end. How many at once: see `surge`.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def surge(live: Mapping[str, Any] | None) -> int:
    """Return how many pods a rollout of a Deployment may have beyond its replicas: a quarter of them, and at least one.

    A number, because of a percentage the Deployment makes less when `replicas` fall, and takes old pods away for that,
    too. For the same reason it never falls while pods are being replaced.
    """
    if live is None:
        return 1
    quarter = max(1, -(-int((live.get("spec") or {}).get("replicas") or 0) // 4))
    return max(quarter, surge_of(live)) if rolling(live) else quarter


def surge_of(live: Mapping[str, Any]) -> int:
    """Return how many pods a rollout of a Deployment may have beyond its replicas, as it is set now."""
    spec = live.get("spec") or {}
    said = ((spec.get("strategy") or {}).get("rollingUpdate") or {}).get("maxSurge", "25%")
    if isinstance(said, int):
        return said
    percent = int(said.removesuffix("%"))
    return -(-int(spec.get("replicas") or 0) * percent // 100)


def rolling(live: Mapping[str, Any]) -> bool:
    """Tell whether a Deployment replaces pods, or has not looked at its spec yet."""
    status = live.get("status") or {}
    behind = int(status.get("observedGeneration") or 0) < int(live["metadata"].get("generation") or 0)
    return behind or int(status.get("updatedReplicas") or 0) < int(status.get("replicas") or 0)


def budget(spec: TaskQueueSpec, *, name: str, namespace: str, uid: str, instance: str = "") -> Json:
    """Return the PodDisruptionBudget of TaskQueue `name`: nodes are emptied a few workers at a time.

    Pods that are not ready may always be evicted: a cordoned worker is one of them, and it is idle.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _about(spec, name, namespace, uid, instance),
        "spec": {
            "selector": {"matchLabels": selector(name)},
            "maxUnavailable": "10%",
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def template_hash(template: Mapping[str, Any]) -> str:
    """Return a short digest by which one pod template is told from another."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _about(spec: TaskQueueSpec, name: str, namespace: str, uid: str, instance: str) -> Json:
    made: Json = {"name": name_of(name), "namespace": namespace, "labels": labels(name, instance)}
    # Without an owner nothing is collected with the TaskQueue: that is what Orphan asks for.
    if spec.deletion_policy != "Orphan":
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": name, "uid": uid, "controller": True}
        # `kubectl delete --cascade=foreground` then comes back when the workers have gone, not before they do.
        made["ownerReferences"] = [{**owner, "blockOwnerDeletion": True}]
    return made


def _worker(queue: str, drain: int) -> Json:
    plain = {
        "TASKFLOW_WORKER_QUEUES": queue,
        # What a worker begins with, rather than one for each of the node's cores; then it reads worker.concurrency.
        "TASKFLOW_WORKER_CHILDREN": "1",
        "TASKFLOW_WORKER_DRAIN_SECONDS": str(drain),
        "TASKFLOW_METRICS_PORT": str(PORT),
    }
    env: list[Json] = [{"name": name, "value": value} for name, value in plain.items()]
    env += [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _DOWNWARD.items()]
    return {
        "name": CONTAINER,
        "env": env,
        "ports": [{"name": PROBES, "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/healthz", period=1, failures=300),
        # Quick, because an idle cordoned worker goes only once it is not ready; never tied to load or stores.
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
    }


def _probe(path: str, *, period: int, failures: int) -> Json:
    asked = {"path": path, "port": PROBES, "scheme": "HTTP"}
    return {"httpGet": asked, "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5}


def _hardened(container: Mapping[str, Any]) -> Json:
    said = container.get("securityContext", {})
    capabilities = {"drop": ["ALL"], **said.get("capabilities", {})}
    return {
        **container,
        "securityContext": {"allowPrivilegeEscalation": False, **said, "capabilities": capabilities},
    }
