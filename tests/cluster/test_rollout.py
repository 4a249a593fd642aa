"""A rollout that is stuck does not block the way down, and no old pod that runs a task is among those that go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.kube import condition
from tests.cluster.place import FULL
from tests.cluster.release import NAME
from tests.cluster.test_scaling import INTERRUPTED, busy
from tests.system import history

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

MOST_SECONDS = 60.0  # that an old pod may stay when it holds nothing
QUOTA = "stuck"


@pytest.mark.parametrize("cause", ["image", "quota"])
def test_a_stuck_rollout_goes_down_and_kills_no_task(release: Release, cause: str, say: Callable[[str], None]) -> None:
    kube, seconds, pods = release.kube, *((150.0, 5) if FULL else (60.0, 3))
    scaling = {"minReplicas": pods, "maxReplicas": pods}
    with release.queue(f"stuck-{cause}", scaling=scaling, drain=300) as queue:
        release.workers(queue, pods, within=180)
        ids = release.submit(queue, [{"value": one, "seconds": seconds} for one in range(2)])
        kube.until(lambda: busy(release, queue) == 2, 60)
        old = set(kube.names("worker", queue))
        stick(release, queue, cause, scaling)
        try:
            began = time.monotonic()
            release.scaling(queue, minReplicas=2, maxReplicas=2)
            kube.until(lambda: len(old & set(kube.names("worker", queue))) <= 2, MOST_SECONDS + 10)
            gone = time.monotonic() - began
            assert gone < MOST_SECONDS
            held = busy(release, queue)
            say(f"{cause}: {pods} → 2 old pods {gone:.0f} s after fewer were wanted; {held} of them ran a task")
            assert held == 2
            release.scaling(queue, minReplicas=1, maxReplicas=1)
            kube.until(lambda: busy(release, queue) < 2, seconds + 60)
            ended = time.monotonic()
            kube.until(lambda: len(old & set(kube.names("worker", queue))) <= 1, MOST_SECONDS + 10)
            gone = time.monotonic() - ended
            assert gone < MOST_SECONDS
            say(f"{cause}: 2 → 1 old pods {gone:.0f} s after the first task ended")
            release.ended(ids, seconds + 60)
        finally:
            kube("delete", "resourcequota", QUOTA, "--ignore-not-found")
        verdict = history.verify(release, ids).clean()
        assert INTERRUPTED & set(verdict.events) == set(), verdict.events
        assert verdict.events["STARTED"] == len(ids)
        say(f"{cause}: {len(ids)} tasks of {seconds:.0f} s on old pods: 0 killed")


def stick(release: Release, queue: str, cause: str, scaling: dict[str, Any]) -> None:
    """Begin a rollout that cannot get on, and wait until the cluster says so."""
    kube = release.kube
    deployment = f"deployment/{NAME}-{queue}"
    container: dict[str, Any] = {"image": "registry.invalid/none:1"} if cause == "image" else {"workingDir": "/tmp"}
    if cause == "quota":
        kube("create", "quota", QUOTA, f"--hard=pods={len(kube.all('pods'))}")
        kube.until(lambda: (kube.one(f"resourcequota/{QUOTA}").get("status") or {}).get("used"), 30)
    kube.apply(manifests.taskqueue(queue, scaling=scaling, drain=300, container=container))

    def stuck() -> bool:
        if cause == "quota":
            return condition(kube.one(deployment), "ReplicaFailure").get("status") == "True"
        return any(reason.endswith(("ImagePull", "BackOff")) for reason in waiting(release, queue))

    kube.until(stuck, 90)


def waiting(release: Release, queue: str) -> list[str]:
    """Why containers of a queue's pods wait."""
    pods = release.kube.pods("worker", queue)
    states = [one.get("state", {}) for pod in pods for one in pod["status"].get("containerStatuses", [])]
    return [state["waiting"].get("reason", "") for state in states if "waiting" in state]
