"""Whatever the values: what is rendered is what Kubernetes knows, with names that fit and labels that select."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import validate

from tests.chart import helm
from tests.chart.schemas import SERVICE_MONITOR
from tests.contract.files import ROOT

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
COMPONENTS = {
    "api", "scheduler", "operator", "worker", "migrate", "postgres", "redis-high", "redis-low", "monitoring", "test",
    "farewell",
}  # fmt: skip
every_file = pytest.mark.parametrize("file", helm.VALUES)


def known(each: dict[str, Any]) -> None:
    if each["kind"] == "ServiceMonitor":
        validate(each, SERVICE_MONITOR)
    else:
        kubernetes_validate.validate(each, "1.35", strict=True)


@every_file
def test_every_object_is_one_that_kubernetes_knows(file: str | None) -> None:
    found = helm.of_file(file)
    assert len(found) > 20
    for each in found:
        known(each)


@every_file
def test_the_part_of_a_workers_pod_is_a_pod(file: str | None) -> None:
    pod = helm.worker_pod(helm.of_file(file))
    known({"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**pod["metadata"], "name": "worker"}})
    assert [each["name"] for each in pod["spec"]["containers"]] == ["worker"]


@every_file
def test_nothing_is_there_twice(file: str | None) -> None:
    found = [(helm.title(each), each["metadata"].get("namespace")) for each in helm.of_file(file)]
    assert len(found) == len(set(found))


@every_file
def test_everything_carries_the_labels_and_its_namespace(file: str | None) -> None:
    for each in helm.of_file(file):
        if each["metadata"]["name"].endswith(("-extra", "-extra-text")) or each["kind"] == "CustomResourceDefinition":
            continue
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "taskflow"
        assert labels["app.kubernetes.io/instance"] == helm.RELEASE
        assert labels["app.kubernetes.io/component"] in COMPONENTS
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert each["kind"] in CLUSTER_SCOPED or each["metadata"]["namespace"] in {helm.NAMESPACE, "team-a", "team-b"}


@every_file
def test_selectors_select_exactly_the_pods_of_their_component(file: str | None) -> None:
    found = helm.of_file(file)
    made = helm.pods(found)
    for each in found:
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector")
        if not selector or each["kind"] == "ServiceMonitor":
            continue
        wanted = selector.get("matchLabels", selector).items()
        hit = [title for title, pod in made.items() if wanted <= pod["metadata"]["labels"].items()]
        assert len(hit) == 1, f"{helm.title(each)} selects {hit}"
        if each["kind"] in {"Deployment", "StatefulSet"}:
            assert hit == [helm.title(each)]
        if each["kind"] == "Service":
            targets = {port["targetPort"] for port in each["spec"]["ports"]}
            (pod,) = (made[title] for title in hit)
            offered = {port for c in pod["spec"]["containers"] for p in c.get("ports", []) for port in p.values()}
            # A worker's port is the operator's to name; it is that of the contract.
            assert targets <= offered or hit == ["workers"]


@pytest.mark.parametrize("release", ["t", "taskflow", "a-taskflow-b", "x" * 53, "taskflow-" + "y" * 44])
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    found = helm.objects(
        helm.in_cluster("-f", str(helm.CHART / "ci/wide-values.yaml"), values={"fullnameOverride": ""}, release=release)
    ) + helm.render(release=release)
    for each in found:
        if each["kind"] == "CustomResourceDefinition":
            continue
        name = each["metadata"]["name"]
        assert len(name) <= 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        # A StatefulSet's pods carry its name, a dash and ten characters in a label.
        assert each["kind"] != "StatefulSet" or len(name) <= 52
        assert all(len(value) <= 63 for value in each["metadata"].get("labels", {}).values())


def test_two_long_names_stay_apart() -> None:
    one, other = (
        {helm.title(each) for each in helm.render(release="taskflow-" + "y" * 42 + end)} for end in ("a", "b")
    )
    shared = {name for name in one & other if "taskqueues" not in name}
    assert shared == set()


def test_versions_are_those_of_the_product() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for chart in ("taskflow", "taskflow-crds"):
        assert yaml.safe_load((ROOT / f"deploy/helm/{chart}/Chart.yaml").read_text())["appVersion"] == version
    images = {
        container["image"] for pod in helm.pods(helm.of_file(None)).values() for container in helm.containers(pod)
    }
    assert images == {
        *(f"ghcr.io/taskflow-dev/taskflow-{role}:{version}" for role in ("api", "scheduler", "worker", "operator")),
        "docker.io/library/postgres:15-bookworm",
        "docker.io/library/redis:7.0-bookworm",
    }


def test_lint_has_nothing_to_say() -> None:
    helm.run("lint", "--strict", "--quiet", "--kube-version", helm.KUBERNETES, str(helm.CHART))
    helm.run("lint", "--strict", "--quiet", "--kube-version", helm.KUBERNETES, str(ROOT / "deploy/helm/taskflow-crds"))
