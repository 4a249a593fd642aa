"""Two releases in one namespace: the second one says Conflict and touches nothing of the first one, at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.release import CHART, NAME, VALUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

SECOND = "second"
RELEASE = "taskflow.dev/release"
ONE = {"minReplicas": 1, "maxReplicas": 1}
SMALL = "api.replicas=1,scheduler.replicas=1,operator.replicas=1,crds.install=false"


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_second_release_says_conflict_and_touches_nothing(release: Release, say: Callable[[str], None]) -> None:
    kube = release.kube
    own = manifests.taskqueue("theirs", scaling=ONE)
    own["metadata"]["annotations"] = {RELEASE: f"{release.namespace}/{SECOND}"}
    with release.queue("ours", scaling=ONE) as queue:
        release.workers(queue, 1)
        before = touched(release, queue)
        words = ("-f", str(VALUES), "--set", SMALL, "--wait", "--timeout", "6m")
        release.helm("install", SECOND, str(CHART), *words, within=400)
        kube.until(lambda: conflicts(release, queue, SECOND), 60)
        assert touched(release, queue) == before
        said = conflicts(release, queue, SECOND)[0]
        say(f"install: Conflict {said}")

        kube.apply(own)
        theirs = f"deployment/{NAME}-theirs"
        kube.until(lambda: kube.one(theirs), 60)
        assert kube.one(theirs)["metadata"]["labels"]["app.kubernetes.io/instance"] == SECOND
        kube.until(lambda: conflicts(release, "theirs", NAME), 60)
        release.workers("theirs", 1)

        release.helm("upgrade", SECOND, str(CHART), *words, "--set", "settings.logLevel=debug", within=400)
        kube.until(lambda: len(conflicts(release, queue, SECOND)) >= 2, 60)  # a new operator says it, too
        assert touched(release, queue) == before
        say("upgrade: nothing of the first release was touched")

        release.helm("uninstall", SECOND, "--wait", "--timeout", "3m", within=200)
        kube.until(lambda: kube.one(theirs)["spec"]["replicas"] == 0, 30)
        ids = release.submit(queue, [{"value": 1}])
        assert set(release.ended(ids).values()) == {"COMPLETED"}
        assert touched(release, queue) == before
        assert kube.one(theirs)["metadata"]["labels"]["app.kubernetes.io/instance"] == SECOND
        assert kube.one(theirs)["spec"]["replicas"] == 0
        say("uninstall: its own workers stopped, those of the first release went on and ran a task")
        kube("delete", "tq", "theirs", "--timeout=60s", within=70)


def touched(release: Release, queue: str) -> dict[str, Any]:
    """What changes when somebody changes a TaskQueue, its Deployment or its pods."""
    kube = release.kube
    taskqueue, deployment = kube.one(f"tq/{queue}"), kube.one(f"deployment/{NAME}-{queue}")
    return {
        "taskqueue": (taskqueue["metadata"]["generation"], taskqueue["metadata"]["annotations"][RELEASE]),
        "writers": sorted({entry["manager"] for entry in taskqueue["metadata"]["managedFields"]}),
        "deployment": (deployment["metadata"]["generation"], deployment["metadata"]["labels"]),
        "pods": sorted(pod["metadata"]["uid"] for pod in kube.pods("worker", queue)),
    }


def conflicts(release: Release, queue: str, who: str) -> list[str]:
    """What a release said about a TaskQueue that it does not serve."""
    return [
        event["message"]
        for event in release.kube.all("events")
        if event["reason"] == "Conflict"
        and event["involvedObject"]["name"] == queue
        and f"/{who} does not serve" in event["message"]
    ]
