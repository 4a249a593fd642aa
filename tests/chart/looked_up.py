"""As much of an API server as helm asks when a template looks Secrets up: the kinds, one by name, their list."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import yaml

from tests.chart.helm import NAMESPACE, RELEASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Helm maps every kind that it rendered, so it must hear of each: by group, the plural is the kind's.
_KINDS = {
    "v1": "Secret ServiceAccount ConfigMap Service Pod",
    "apps/v1": "Deployment StatefulSet",
    "batch/v1": "Job",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding ClusterRole ClusterRoleBinding",
    "policy/v1": "PodDisruptionBudget",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "monitoring.coreos.com/v1": "ServiceMonitor",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
}


def _discovery() -> dict[str, Any]:
    groups: list[dict[str, Any]] = []
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for version, kinds in _KINDS.items():
        answers[f"/api{'s' if '/' in version else ''}/{version}"] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {
                    "name": f"{kind.lower()}s",
                    "singularName": kind.lower(),
                    "namespaced": True,
                    "kind": kind,
                    "verbs": ["get"],
                }
                for kind in kinds.split()
            ],
        }
        if "/" in version:
            served = {"groupVersion": version, "version": version.partition("/")[2]}
            groups.append({"name": version.partition("/")[0], "versions": [served], "preferredVersion": served})
    return answers


def stored(secret: dict[str, Any]) -> dict[str, Any]:
    """A Secret as the API server keeps it."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in secret["stringData"].items()}
    # Helm's own mark, by which a new install takes up what an older one left.
    mark = {f"meta.helm.sh/release-{what}": value for what, value in (("name", RELEASE), ("namespace", NAMESPACE))}
    metadata = secret["metadata"] | {"annotations": secret["metadata"].get("annotations", {}) | mark}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


@contextmanager
def cluster(folder: Path, secrets: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Serve `secrets`; yield the path of a kubeconfig."""
    answers = _discovery()
    listed = {"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": list(secrets)}
    answers[f"/api/v1/namespaces/{NAMESPACE}/secrets"] = listed
    for secret in secrets:
        where = secret["metadata"]
        answers[f"/api/v1/namespaces/{where['namespace']}/secrets/{where['name']}"] = secret

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # head and body in one packet: two would wait for each other

        def do_GET(self) -> None:
            found = answers.get(self.path.partition("?")[0])
            body = json.dumps(
                found or {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound"}
            ).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        try:
            yield str(path)
        finally:
            server.shutdown()
