"""Why a worker's pod went is written on the attempts that went with it, as Kubernetes has it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.kube import command, condition
from tests.system import history

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.place import Place
    from tests.cluster.release import Release

ONE = {"mode": "Fixed", "replicas": 1}
# Of this resource the node has one: whoever needs it and is more important takes it from a worker, and from no other.
SCARCE = "taskflow-tests.dev/scarce"
URGENT = "taskflow-tests-urgent"


def test_an_evicted_worker_is_named_and_charges_nothing(release: Release, say: Callable[[str], None]) -> None:
    kube = release.kube
    with release.queue("evicted", scaling=ONE, drain=3) as queue:
        [pod] = release.workers(queue, 1)
        # Longer than the drain, so its process is ended; the next attempt is left in peace.
        [task] = release.submit(queue, [{"value": 1, "seconds": 15.0}])
        release.running([task])
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        where = f"/api/v1/namespaces/{kube.namespace}/pods/{pod}/eviction"
        command("kubectl", "create", "--raw", where, "-f", "-", given=json.dumps(eviction))
        death = first_death(release, task)
        assert death["reason"] == "Evicted"
        release.ended([task], 90)
        verdict = history.verify(release, [task]).clean()
    assert verdict.charged == 0
    say(f"an eviction, as the API tells it: {death['reason']}, {death['message']}")


@pytest.mark.full
def test_a_preempted_worker_is_named_and_charges_nothing(
    release: Release, place: Place, say: Callable[[str], None]
) -> None:
    if not place.own:
        pytest.skip("gives the node a resource, which only the cluster of ../shared/cluster lets us do")
    kube = release.kube
    needs = {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi", SCARCE: "1"}}}
    with ExitStack() as mend:
        capacity("add")
        mend.callback(capacity, "remove")
        importance = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": URGENT}}
        kube.apply({**importance, "value": 1000})
        mend.callback(kube, "delete", "priorityclass", URGENT, "--ignore-not-found")
        with release.queue("preempted", scaling=ONE, drain=3, container=needs) as queue:
            release.workers(queue, 1)
            [task] = release.submit(queue, [{"value": 1, "seconds": 15.0}])
            release.running([task])
            urgent = release.client_pod("urgent", ["-c", "pass"])
            urgent["spec"]["priorityClassName"] = URGENT
            urgent["spec"]["containers"][0]["resources"]["limits"][SCARCE] = "1"
            kube.apply(urgent)
            death = first_death(release, task)
            assert death["reason"] == "Preempted"
            release.ended([task], 120)
            verdict = history.verify(release, [task]).clean()
        kube("delete", "pod", "urgent", "--wait=false")
    assert verdict.charged == 0
    say(f"a preemption, as the API tells it: {death['reason']}, {death['message']}")


def test_an_image_that_cannot_be_had_is_told_and_no_more_pods_are_ordered(
    release: Release, say: Callable[[str], None]
) -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 9}
    image = {"image": "registry.invalid/nobody/nothing:1"}
    with release.queue("imageless", scaling=scaling, container=image) as queue:

        def told() -> dict[str, Any]:
            found = condition(release.kube.one(f"tq/{queue}"), "WorkersFailing")
            return found if found.get("status") == "True" else {}

        found = release.kube.until(told, 90)
        assert found["reason"] in {"ErrImagePull", "ImagePullBackOff"}
        assert queue in found["message"]
        release.submit(queue, [{"value": one} for one in range(50)])
        release.kube.until(lambda: release.kube.one(f"tq/{queue}")["status"]["depth"]["queued"] == 50, 30)
        assert release.replicas(queue) == 1, "they would not come up either"
        say(f"{found['reason']}: {found['message']}")


def first_death(release: Release, task: str) -> dict[str, Any]:
    """What the API says of the death that ended a task's first attempt, once it says something."""

    def told() -> dict[str, Any]:
        [(status, answer)] = release.get(f"/v1/tasks/{task}/attempts")
        assert status == 200, answer
        return (answer["attempts"] or [{}])[0].get("death") or {}

    return release.kube.until(told, 60, every=1)


def capacity(deed: str) -> None:
    """Give the node one of the scarce resource, or take it away."""
    [node] = json.loads(command("kubectl", "get", "nodes", "-o", "json"))["items"]
    path = f"/status/capacity/{SCARCE.replace('/', '~1')}"
    patch = [{"op": deed, "path": path, **({"value": "1"} if deed == "add" else {})}]
    words = ("patch", "node", node["metadata"]["name"], "--subresource=status", "--type=json", "-p", json.dumps(patch))
    command("kubectl", *words)
