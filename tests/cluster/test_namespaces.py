"""An operator that serves several namespaces: one that is lost stops no other, and a namespace goes by itself."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cluster import manifests
from tests.cluster.kube import CommandFailed, Kube, command
from tests.cluster.release import CHART, NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.release import Release

ONE = {"minReplicas": 1, "maxReplicas": 1}
LABEL = ("pod-security.kubernetes.io/enforce=restricted", "taskflow-tests=yes")


class Served(NamedTuple):
    """A release, and two other namespaces that its operator serves."""

    release: Release
    near: Kube
    far: Kube


def made(namespace: str) -> Kube:
    """Make a namespace."""
    command("kubectl", "create", "namespace", namespace)
    command("kubectl", "label", "namespace", namespace, *LABEL)
    return Kube(namespace)


def furnish(release: Release, kube: Kube) -> None:
    """Put what workers need into another namespace, as docs/kubernetes.md says."""
    kube("create", "serviceaccount", f"{NAME}-worker")
    for name, key in (("database", "worker-url"), ("redis", "worker-password")):
        data = {key: release.kube.one(f"secret/{NAME}-{name}")["data"][key]}
        kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{NAME}-{name}"}, "data": data})
    kube.apply(manifests.scripts())


@pytest.fixture(scope="module")
def served(new_release: Callable[..., Release]) -> Iterator[Served]:
    near, far = (made(f"tf-test-{secrets.token_hex(3)}") for _ in range(2))
    try:
        release = new_release("--set", f"operator.watchNamespaces={{{near.namespace},{far.namespace}}}")
        for kube in (near, far):
            furnish(release, kube)
        yield Served(release, near, far)
    finally:
        for kube in (near, far):
            with suppress(CommandFailed):
                for thing in kube.all("taskqueues.taskflow.dev"):
                    kube.patch(f"tq/{thing['metadata']['name']}", {"metadata": {"finalizers": None}})
            command("kubectl", "delete", "namespace", kube.namespace, "--ignore-not-found", "--wait=false")


def operator_says(release: Release, path: str) -> str:
    """What the leading operator answers to a probe or to Prometheus."""
    code = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    python = "/opt/taskflow/bin/python"
    return release.kube.inside(release.leader("operator"), python, "-c", code, f"http://127.0.0.1:8081/{path}")


def serves(release: Release, kube: Kube) -> bool | None:
    """The gauge of a namespace; None when there is no such sample."""
    line = f'taskflow_operator_namespace_served{{namespace="{kube.namespace}"}} '
    value = operator_says(release, "metrics").partition(line)[2].partition("\n")[0]
    return bool(float(value)) if value else None


def restart_operator(release: Release) -> None:
    pods = release.kube.names("operator")
    release.kube.kill(*pods)
    release.kube.until(lambda: set(release.kube.ready("operator")) - set(pods), 90)
    release.kube.until(lambda: release.leader("operator") not in pods, 60)


def recorded(release: Release) -> dict[str, int]:
    """The queues that a TaskQueue sets, and their caps."""
    found = release.rows("select name, max_concurrent from queues where taskqueue is not null")
    return {row["name"]: row["max_concurrent"] for row in found}


@pytest.mark.full
def test_a_list_that_is_denied_for_a_minute_changes_nothing_there(served: Served, say: Callable[[str], None]) -> None:
    release, near, far = served
    far.apply(manifests.taskqueue("far", scaling=ONE, limits={"maxConcurrent": 7}))
    far.until(lambda: far.ready("worker", "far"), 90)
    near.apply(manifests.taskqueue("near", scaling=ONE))
    near.until(lambda: near.ready("worker", "near"), 90)
    before, worker = far.one(f"deployment/{NAME}-far")["metadata"]["generation"], far.names("worker", "far")
    binding = far.one(f"rolebinding/{NAME}-operator")
    far("delete", "rolebinding", f"{NAME}-operator")
    restart_operator(release)
    release.kube.until(lambda: serves(release, far) is False, 60)
    assert serves(release, near) is True
    denied = time.monotonic()
    near("delete", "tq", "near", "--timeout=30s", within=40)
    near.apply(manifests.taskqueue("next", queueName="near"))  # its queue is free: the first one is known to be gone
    near.until(lambda: near.one(f"deployment/{NAME}-next"), 60)
    release.kube.until(lambda: time.monotonic() - denied > 60, 90, every=1)
    assert recorded(release)["far"] == 7
    assert far.one(f"deployment/{NAME}-far")["metadata"]["generation"] == before
    assert far.names("worker", "far") == worker
    metadata = {name: binding["metadata"][name] for name in ("name", "labels", "annotations")}
    far.apply({**{name: binding[name] for name in ("apiVersion", "kind", "roleRef", "subjects")}, "metadata": metadata})
    release.kube.until(lambda: serves(release, far), 60)
    far.until(lambda: json.dumps(far.one("tq/far")["status"]["conditions"]).count("PodsReady"), 60)
    say("a list denied for a minute: its queue, Deployment, worker and settings stayed; served again afterwards")
    for kube, name in ((far, "far"), (near, "next")):
        kube("delete", "tq", name, "--timeout=30s", within=40)


def test_a_lost_namespace_stops_no_other_and_comes_back(served: Served, say: Callable[[str], None]) -> None:
    release, near, far = served
    far.apply(manifests.taskqueue("idle"))
    far.until(lambda: far.one(f"deployment/{NAME}-idle"), 60)
    command("kubectl", "delete", "namespace", far.namespace, "--timeout=90s", within=100)
    restart_operator(release)
    near.apply(manifests.taskqueue("first", scaling=ONE))
    near.until(lambda: near.ready("worker", "first"), 90)
    release.kube("wait", "--for=condition=Ready", "tq/default", "--timeout=60s", within=70)
    assert (serves(release, far), serves(release, near)) == (False, True)
    log = release.kube("logs", release.leader("operator"), "--tail=500")
    lines = [line for line in log.splitlines() if "a namespace cannot be served" in line and far.namespace in line]
    assert lines
    say(f"the operator's log: {json.loads(lines[0])['event']}: {json.loads(lines[0])['why']}"[:300])
    assert release.kube.ready("operator") == release.kube.names("operator")

    made(far.namespace)
    release.helm("upgrade", NAME, str(CHART), "--reuse-values", "--wait", within=300)  # it makes the Role there again
    release.kube.until(lambda: serves(release, far), 60)
    far.apply(manifests.taskqueue("again"))
    far.until(lambda: far.one(f"deployment/{NAME}-again"), 60)
    near("delete", "tq", "first", "--timeout=30s", within=40)


def test_a_namespace_goes_by_itself_without_an_operator(served: Served, say: Callable[[str], None]) -> None:
    release, near, _ = served
    near.apply(manifests.taskqueue("last", scaling=ONE, drain=30))
    near.until(lambda: near.ready("worker", "last"), 90)
    release.kube("scale", f"deployment/{NAME}-operator", "--replicas=0")
    release.kube.until(lambda: not release.kube.all("pods", "app.kubernetes.io/component=operator"), 60)
    began = time.monotonic()
    command("kubectl", "delete", "namespace", near.namespace, "--timeout=90s", within=100)
    say(f"a namespace with a TaskQueue and a worker, no operator: gone after {time.monotonic() - began:.0f} s")
    release.kube("scale", f"deployment/{NAME}-operator", "--replicas=1")
