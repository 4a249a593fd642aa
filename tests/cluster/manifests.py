"""What the tests put into the cluster besides the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cluster.place import REGISTRY

FILES = Path(__file__).parent / "inside"
SCRIPTS = "cluster-tests"
_WHERE = "/opt/tests"
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def scripts() -> dict[str, Any]:
    """The ConfigMap with everything of `inside/`."""
    data = {file.name: file.read_text(encoding="utf-8") for file in sorted(FILES.glob("*.py"))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SCRIPTS}, "data": data}


def taskqueue(
    name: str,
    *,
    scaling: dict[str, Any] | None = None,
    concurrency: int = 1,
    drain: int = 60,
    container: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A TaskQueue whose workers run cluster_tasks.py, with windows short enough for a test."""
    windows = {
        "idleToZeroSeconds": 5,
        "scaleUp": {"maxPods": 10, "maxPercent": 1000, "periodSeconds": 1},
        "scaleDown": {"stabilizationSeconds": 0, "maxPods": 10, "periodSeconds": 1},
    }
    worker: dict[str, Any] = {
        "name": "worker",
        "env": [
            {"name": "PYTHONPATH", "value": _WHERE},
            {"name": "TASKFLOW_WORKER_MODULES", "value": "cluster_tasks"},
        ],
        "volumeMounts": [{"name": "tests", "mountPath": _WHERE, "readOnly": True}],
        **(container or {}),
    }
    template = {"spec": {"containers": [worker], "volumes": [{"name": "tests", "configMap": {"name": SCRIPTS}}]}}
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": name},
        "spec": {
            **spec,
            "scaling": {**windows, **(scaling or {})},
            "worker": {"concurrency": concurrency, "drainSeconds": drain, "template": template},
        },
    }


def client(name: str, fullname: str, tag: str, script: list[str], **env: str) -> dict[str, Any]:
    """A pod that speaks to the API as the administrator does."""
    key = {"secretKeyRef": {"name": f"{fullname}-admin", "key": "api-key"}}
    variables: list[dict[str, Any]] = [{"name": variable, "value": value} for variable, value in env.items()]
    variables += [{"name": "API_KEY", "valueFrom": key}, {"name": "API_URL", "value": f"http://{fullname}-api"}]
    container = {
        "name": "client",
        "image": f"{REGISTRY}/taskflow-worker:{tag}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-u", *script],
        "env": variables,
        "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": _RESTRICTED,
        "volumeMounts": [{"name": "tests", "mountPath": _WHERE}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "cluster-tests"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tests", "configMap": {"name": SCRIPTS}}, {"name": "tmp", "emptyDir": {}}],
        },
    }


def script(name: str) -> str:
    """Where a file of `inside/` is in a pod."""
    return f"{_WHERE}/{name}"
