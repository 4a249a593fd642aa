"""`helm install` with default values gives a system that works, and `helm uninstall` takes it away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.cluster.kube import ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release


def test_a_plain_install_works_and_an_uninstall_leaves_nothing_stuck(
    new_release: Callable[..., Release], say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    release = new_release(values=None)
    say(f"helm install taskflow deploy/helm/taskflow --wait: {time.monotonic() - began:.0f} s")
    kube = release.kube
    kube("wait", "--for=condition=Ready", "tq/default", "--timeout=120s", within=130)
    say(
        f"kubectl wait --for=condition=Ready tq/default: ready {time.monotonic() - began:.0f} s after the install began"
    )
    said = release.helm("test", "taskflow", "--logs", within=180)
    assert "Phase:          Succeeded" in said
    say(f"helm test taskflow: passed {time.monotonic() - began:.0f} s after the install began")
    release.settled()
    assert release.restarted() == {}
    assert [pod for pod in kube.all("pods", "job-name") if not ended(pod)] == []
    say("restarted containers: none")

    began = time.monotonic()
    release.helm("uninstall", "taskflow", "--wait", within=200)
    kube.until(lambda: not kube.pods(), 60)
    # The queue outlives the release, as its definition does, and nothing keeps it from going.
    kube("delete", "tq", "default", "--timeout=20s", within=30)
    kube.until(lambda: not kube.all("deployments,statefulsets,replicasets,jobs,poddisruptionbudgets"), 60)
    kube("delete", "pod", "client", "--wait=false")
    say(f"helm uninstall and kubectl delete tq default: nothing left after {time.monotonic() - began:.0f} s")


def test_pods_that_pod_security_forbids_are_refused_in_this_namespace(release: Release) -> None:
    """The label that all of these tests live under does what it says."""
    image = "--image=ghcr.io/taskflow-dev/taskflow-worker"
    said = release.kube.refused("run", "forbidden", image, "--restart=Never", "--privileged")
    assert 'violates PodSecurity "restricted' in said
