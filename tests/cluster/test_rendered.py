"""`helm template | kubectl apply` on a live release changes nothing that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.kube import command
from tests.cluster.release import CHART, NAME, PAIRS, VALUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release


def test_rendering_and_applying_twice_on_a_live_release_disturbs_nobody(
    release: Release, say: Callable[[str], None]
) -> None:
    kube = release.kube
    with release.queue("rendered", scaling={"minReplicas": 2, "maxReplicas": 2}) as queue:
        workers = release.workers(queue, 2)
        release.settled()
        before = lives(release)
        secrets = {
            one["metadata"]["name"]: one["data"] for one in kube.all("secrets", "app.kubernetes.io/name=taskflow")
        }
        ids = release.submit(queue, [{"value": one, "seconds": 30.0} for one in range(2)])
        release.running(ids)
        rendered = ("helm", "template", NAME, str(CHART), "-n", release.namespace, "-f", str(VALUES), "--set", PAIRS)
        text = command(*rendered, "--kube-version", "1.34")  # without a cluster, helm takes its own guess
        for _ in range(2):
            kube("apply", "--server-side", "-f", "-", given=text)
        assert set(release.ended(ids).values()) == {"COMPLETED"}
        release.settled()
        assert lives(release) == before, "no pod is new, none was restarted"
        assert release.workers(queue, 2) == workers
        assert [len(release.attempts(task)) for task in ids] == [1, 1]
        assert secrets == {
            one["metadata"]["name"]: one["data"] for one in kube.all("secrets", "app.kubernetes.io/name=taskflow")
        }
        assert kube.all("jobs", "app.kubernetes.io/component=farewell") == []
    say(f"helm template | kubectl apply --server-side, twice: {len(before)} pods as before, 2 running tasks completed")


def lives(release: Release) -> dict[str, int]:
    """How often each pod's containers were restarted, by the pod's uid."""
    return {
        pod["metadata"]["uid"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
        for pod in release.kube.pods()
        if "job-name" not in pod["metadata"]["labels"]
    }
