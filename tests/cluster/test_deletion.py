"""A TaskQueue can always be deleted, and what becomes of its workers and tasks is what its policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster import manifests
from tests.cluster.release import NAME
from tests.system import history

if TYPE_CHECKING:
    from tests.cluster.release import Release

NO_FINALIZERS = {"metadata": {"finalizers": None}}
ONE = {"minReplicas": 1, "maxReplicas": 1}


def test_drain_lets_running_tasks_end_and_keeps_waiting_ones(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("gone-drain", scaling=ONE))
    release.workers("gone-drain", 1)
    ids = release.submit("gone-drain", [{"value": one, "seconds": 10.0} for one in range(3)])
    kube.until(lambda: "IN_PROGRESS" in release.statuses(ids).values(), 30)
    kube("delete", "tq", "gone-drain", "--timeout=90s", within=100)
    kube.until(lambda: not kube.pods("worker", "gone-drain"), 60)
    found = release.statuses(ids)
    done = [task for task, status in found.items() if status == "COMPLETED"]
    assert done
    assert {found[task] for task in ids if task not in done} <= {"QUEUED", "PENDING"}
    assert history.verify(release, done).clean().events["STARTED"] == len(done)


def test_purge_cancels_what_waits(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("gone-purge", scaling=ONE, deletionPolicy="Purge"))
    release.workers("gone-purge", 1)
    ids = release.submit("gone-purge", [{"value": one, "seconds": 10.0} for one in range(5)])
    kube.until(lambda: "IN_PROGRESS" in release.statuses(ids).values(), 30)
    kube("delete", "tq", "gone-purge", "--timeout=90s", within=100)
    kube.until(lambda: not kube.pods("worker", "gone-purge"), 60)
    assert set(release.statuses(ids).values()) == {"COMPLETED", "CANCELLED"}


def test_orphan_leaves_the_workers_as_they_are(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("gone-orphan", scaling=ONE, deletionPolicy="Orphan"))
    [worker] = release.workers("gone-orphan", 1)
    kube("delete", "tq", "gone-orphan", "--timeout=30s", within=40)
    ids = release.submit("gone-orphan", [{"value": 1}])
    assert set(release.ended(ids).values()) == {"COMPLETED"}
    assert kube.names("worker", "gone-orphan") == [worker]
    assert not kube.one(f"deployment/{NAME}-gone-orphan")["metadata"].get("ownerReferences")
    kube("delete", f"deployment/{NAME}-gone-orphan", f"pdb/{NAME}-gone-orphan", "--ignore-not-found")


def test_a_taskqueue_goes_by_the_documented_way_when_the_operator_is_gone(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("gone-alone", scaling=ONE))
    release.workers("gone-alone", 1)
    replicas = kube.one(f"deployment/{NAME}-operator")["spec"]["replicas"]
    kube("scale", f"deployment/{NAME}-operator", "--replicas=0")
    kube.until(lambda: not kube.all("pods", "app.kubernetes.io/component=operator"), 60)
    try:
        kube("delete", "tq", "gone-alone", "--wait=false")
        assert kube.one("tq/gone-alone")["metadata"]["deletionTimestamp"]
        kube.patch("tq/gone-alone", NO_FINALIZERS)
        kube.until(lambda: not kube.one("tq/gone-alone"), 20)
        kube.until(lambda: not kube.pods("worker", "gone-alone"), 60)
    finally:
        kube("scale", f"deployment/{NAME}-operator", f"--replicas={replicas}")
    release.settled()
