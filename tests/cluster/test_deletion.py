"""A TaskQueue can always be deleted, and what becomes of its workers and tasks is what its policy says."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import manifests
from tests.cluster.release import NAME
from tests.system import history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.release import Release

NO_FINALIZERS = {"metadata": {"finalizers": None}}
ONE = {"minReplicas": 1, "maxReplicas": 1}


def test_drain_gives_running_tasks_their_seconds_and_keeps_waiting_ones(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("gone-drain", scaling=ONE, drain=60))
    release.workers("gone-drain", 1)
    assert not kube.one("tq/gone-drain")["metadata"].get("finalizers")
    ids = release.submit("gone-drain", [{"value": one, "seconds": 10.0} for one in range(3)])
    kube.until(lambda: "IN_PROGRESS" in release.statuses(ids).values(), 30)
    kube("delete", "tq", "gone-drain", "--timeout=10s", within=20)
    kube.until(lambda: gone(release, "gone-drain"), 60)
    found = release.statuses(ids)
    done = [task for task, status in found.items() if status == "COMPLETED"]
    assert done
    assert {found[task] for task in ids if task not in done} <= {"QUEUED", "PENDING"}
    assert history.verify(release, done).clean().events["STARTED"] == len(done)
    kube.until(
        lambda: not release.one("select count(*) from queues where name = 'gone-drain' and taskqueue is not null"), 30
    )


def test_wait_lets_running_tasks_end_without_limit(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("gone-wait", scaling=ONE, drain=1, deletionPolicy="Wait"))
    release.workers("gone-wait", 1)
    ids = release.submit("gone-wait", [{"value": one, "seconds": 10.0} for one in range(3)])
    kube.until(lambda: "IN_PROGRESS" in release.statuses(ids).values(), 30)
    kube("delete", "tq", "gone-wait", "--timeout=90s", within=100)
    found = release.statuses(ids)
    done = [task for task, status in found.items() if status == "COMPLETED"]
    assert done
    assert {found[task] for task in ids if task not in done} <= {"QUEUED", "PENDING"}
    assert history.verify(release, done).clean().events["STARTED"] == len(done)


@pytest.mark.parametrize("policy", ["Drain", "Wait"])
def test_a_foreground_deletion_gives_running_tasks_their_drain_seconds(
    release: Release, policy: str, say: Callable[[str], None]
) -> None:
    name = f"front-{policy.lower()}"
    ids, seconds = foreground(release, name, task_seconds=12.0, drain=60, deletionPolicy=policy)
    assert release.statuses(ids) == dict.fromkeys(ids, "COMPLETED")
    say(f"{policy}, drainSeconds 60, tasks of 12 s: 3 of 3 completed, kubectl came back after {seconds:.0f} s")


@pytest.mark.full
def test_a_foreground_deletion_ends_tasks_that_are_longer_than_drain_seconds(
    release: Release, say: Callable[[str], None]
) -> None:
    ids, seconds = foreground(release, "front-short", task_seconds=60.0, drain=5)
    release.kube.until(lambda: set(release.statuses(ids).values()) <= {"QUEUED", "PENDING"}, 30)
    ends = [[(one["event"], one["cause"]) for one in release.attempts(task)] for task in ids]
    charged = release.rows("select id::text, retry_count, crash_count from tasks where id = any(%s::uuid[])", ids)
    assert all(not row["retry_count"] and not row["crash_count"] for row in charged), charged
    say(f"drainSeconds 5, tasks of 60 s: 3 of 3 given back ({ends[0]}), kubectl came back after {seconds:.0f} s")


def foreground(release: Release, name: str, *, task_seconds: float, drain: int, **spec: Any) -> tuple[list[str], float]:
    """Delete a TaskQueue with three running tasks, --cascade=foreground; the tasks, and how long kubectl waited."""
    kube = release.kube
    kube.apply(manifests.taskqueue(name, scaling=ONE, concurrency=3, drain=drain, **spec))
    release.workers(name, 1)
    ids = release.submit(name, [{"value": one, "seconds": task_seconds} for one in range(3)])
    release.running(ids)
    began = time.monotonic()
    kube("delete", "tq", name, "--cascade=foreground", "--timeout=90s", within=100)
    seconds = time.monotonic() - began
    assert gone(release, name), "kubectl waits for the pods"
    return ids, seconds


def test_cascade_orphan_leaves_the_workers_as_they_are(release: Release) -> None:
    kube = release.kube
    kube.apply(manifests.taskqueue("left", scaling=ONE))
    [worker] = release.workers("left", 1)
    kube("delete", "tq", "left", "--cascade=orphan", "--timeout=30s", within=40)
    ids = release.submit("left", [{"value": 1}])
    assert set(release.ended(ids).values()) == {"COMPLETED"}
    assert kube.names("worker", "left") == [worker]
    kube("delete", f"deployment/{NAME}-left", f"pdb/{NAME}-left", "--ignore-not-found")


def gone(release: Release, queue: str) -> bool:
    """Whether no pod of a TaskQueue is left, ending ones included."""
    return not release.kube.all("pods", f"taskflow.dev/queue={queue}")


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


def test_without_an_operator_drain_goes_by_itself_and_purge_by_the_documented_way(
    release: Release, say: Callable[[str], None]
) -> None:
    kube = release.kube
    for name, policy in (("alone-drain", "Drain"), ("alone-old", "Drain"), ("alone-purge", "Purge")):
        kube.apply(manifests.taskqueue(name, scaling=ONE, deletionPolicy=policy))
    for name in ("alone-drain", "alone-old", "alone-purge"):
        release.workers(name, 1)
    with operator_stopped(release):
        began = time.monotonic()
        kube("delete", "tq", "alone-drain", "--timeout=20s", within=30)
        kube.until(lambda: gone(release, "alone-drain"), 60)
        say(f"an idle TaskQueue without an operator: nothing left after {time.monotonic() - began:.0f} s")
        kube.patch("tq/alone-old", {"metadata": {"finalizers": ["taskflow.dev/drain"]}})  # as older operators did
        kube("delete", "tq", "alone-old", "alone-purge", "--wait=false")
        assert kube.one("tq/alone-purge")["metadata"]["deletionTimestamp"]
        kube.patch("tq/alone-purge", NO_FINALIZERS)
        kube.until(lambda: not kube.one("tq/alone-purge"), 20)
        kube.until(lambda: gone(release, "alone-purge"), 60)
        assert kube.one("tq/alone-old")["metadata"]["deletionTimestamp"]
    kube.until(lambda: not kube.one("tq/alone-old"), 60)
    kube.until(lambda: gone(release, "alone-old"), 60)
    release.settled()


@contextmanager
def operator_stopped(release: Release) -> Iterator[None]:
    """Run the block while no operator is there."""
    kube = release.kube
    replicas = kube.one(f"deployment/{NAME}-operator")["spec"]["replicas"]
    kube("scale", f"deployment/{NAME}-operator", "--replicas=0")
    kube.until(lambda: not kube.all("pods", "app.kubernetes.io/component=operator"), 60)
    try:
        yield
    finally:
        kube("scale", f"deployment/{NAME}-operator", f"--replicas={replicas}")
