"""What a TaskQueue must not say: refused by the API server, or answered by a condition and no Deployment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kube import condition
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from tests.cluster.release import Release

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "min above max": ({"scaling": {"minReplicas": 9, "maxReplicas": 3}}, "minReplicas (9) must not be above"),
    "negative": ({"scaling": {"minReplicas": -1}}, "should be greater than or equal to 0"),
    "zero at most": ({"scaling": {"maxReplicas": 0}}, "should be greater than or equal to 1"),
    "huge": ({"scaling": {"maxReplicas": 1_000_000}}, "should be less than or equal to 1000"),
    "no number": ({"scaling": {"maxReplicas": "many"}}, 'Invalid value: "string"'),
    "unknown field": ({"scaling": {"maxReplica": 3}}, 'unknown field "spec.scaling.maxReplica"'),
    "unknown mode": ({"scaling": {"mode": "Magic"}}, 'supported values: "QueueDepth"'),
    "name of a queue": ({"queueName": "no spaces"}, "spec.queueName in body should match"),
}  # fmt: skip


def manifest(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "taskflow.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_taskqueue_is_refused_with_a_sentence(release: Release, what: str) -> None:
    spec, sentence = BAD[what]
    assert sentence in release.kube.refused("apply", "-f", "-", given=json.dumps(manifest("bad", spec)))
    assert not release.kube.one("tq/bad")


def test_a_name_too_long_for_what_is_made_of_it_is_refused(release: Release) -> None:
    said = release.kube.refused("apply", "-f", "-", given=json.dumps(manifest("n" * 41, {})))
    assert "40" in said


def test_the_name_of_the_queue_cannot_be_changed(release: Release) -> None:
    release.kube.apply(manifest("fixed-name", {"scaling": {"hold": "All"}}))
    said = release.kube.refused("patch", "tq/fixed-name", "--type=merge", "-p", '{"spec": {"queueName": "other"}}')
    assert "cannot be changed" in said
    release.kube("delete", "tq", "fixed-name", "--timeout=60s")


def pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker", **(container or {})}], **spec}}


HOSTILE: dict[str, dict[str, Any]] = {
    "hostpath": pod(volumes=[{"name": "root", "hostPath": {"path": "/"}}]),
    "privileged": pod({"securityContext": {"privileged": True}}),
    "account": pod(serviceAccountName=f"{NAME}-operator"),
    "token": pod(automountServiceAccountToken=True),
    "network": pod(hostNetwork=True),
    "hostport": pod({"ports": [{"containerPort": 80, "hostPort": 80}]}),
    "capability": pod({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
    "projected": pod(
        volumes=[{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]
    ),
    "init": pod(initContainers=[{"name": "first", "image": "busybox", "securityContext": {"privileged": True}}]),
}


def test_a_hostile_template_gets_a_condition_and_no_deployment(release: Release) -> None:
    names = {f"hostile-{what}": template for what, template in HOSTILE.items()}
    spec = {"scaling": {"mode": "Fixed", "replicas": 1}}
    release.kube.apply(*(manifest(name, {**spec, "worker": {"template": one}}) for name, one in names.items()))
    for name in names:
        found = release.kube.until(lambda name=name: refusal(release, name), 60)
        assert found["message"], name
        assert not release.kube.one(f"deployment/{NAME}-{name}"), name
        ready = condition(release.kube.one(f"tq/{name}"), "Ready")
        assert ready["status"] == "False"
    release.kube("delete", "tq", *names, "--timeout=60s", within=70)


def refusal(release: Release, name: str) -> dict[str, Any]:
    found = condition(release.kube.one(f"tq/{name}"), "TemplateInvalid")
    return found if found.get("status") == "True" else {}


def test_a_template_that_the_server_refuses_is_told_as_well(release: Release) -> None:
    """It breaks no rule of ours; Kubernetes itself does not take it."""
    template = pod({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})
    release.kube.apply(manifest("impossible", {"worker": {"template": template}}))
    found = release.kube.until(lambda: refusal(release, "impossible"), 60)
    assert "must be less than or equal to cpu limit" in found["message"]
    release.kube("delete", "tq", "impossible", "--timeout=60s", within=70)


def test_a_taskqueue_does_not_take_over_what_is_not_its_own(release: Release) -> None:
    """Its Deployment would be called as the API's is."""
    before = release.kube.one(f"deployment/{NAME}-api")["spec"]
    release.kube.apply(manifest("api", {}))

    def told() -> bool:
        return condition(release.kube.one("tq/api"), "Conflict").get("status") == "True"

    release.kube.until(told, 60)
    release.kube("delete", "tq", "api", "--timeout=60s", within=70)
    assert release.kube.one(f"deployment/{NAME}-api")["spec"] == before
