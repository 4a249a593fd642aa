"""Task types that nobody has announced yet: a new image of a queue without workers, and a typing error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.cluster import manifests
from tests.cluster.kube import condition
from tests.cluster.release import NAME
from tests.cluster.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

NONE = {"minReplicas": 0, "maxReplicas": 3}
HELLO = "examples.hello:hello"


def test_a_new_type_of_a_new_image_starts_on_a_queue_without_workers(
    release: Release, say: Callable[[str], None]
) -> None:
    """The documentation's own path: default image, no workers left, own image, submit."""
    kube = release.kube
    own = manifests.taskqueue("novel", scaling=NONE)
    default = {**own, "spec": {**own["spec"], "worker": {"concurrency": 1}}}
    kube.apply(default)
    kube.until(lambda: kube.one(f"deployment/{NAME}-novel"), 30)
    ids = release.submit("novel", [{"name": "first"}], HELLO)
    assert set(release.ended(ids).values()) == {"COMPLETED"}
    release.workers("novel", 0)
    kube.apply(own)
    began = time.monotonic()
    ids = release.submit("novel", [{"value": 1}])
    assert set(release.ended(ids).values()) == {"COMPLETED"}
    say(f"a new type on a queue without workers: COMPLETED {time.monotonic() - began:.0f} s after the submit")
    kube("delete", "tq", "novel", "--timeout=90s", within=100)


def test_a_typing_error_costs_one_start_and_a_mended_image_is_tried(
    release: Release, say: Callable[[str], None]
) -> None:
    kube = release.kube
    broken = {"env": [{"name": "TASKFLOW_WORKER_MODULES", "value": "examples.hello"}]}
    with release.queue("typing", scaling=NONE, container=broken) as queue:
        release.ended(release.submit(queue, [{"name": "first"}], HELLO))
        release.workers(queue, 0)
        with Watch(release, queue) as watch:
            ids = release.submit(queue, [{"value": 1}])
            kube.until(lambda: release.replicas(queue) == 1, 30)
            release.workers(queue, 0)
            kube.until(lambda: kube.one(f"tq/{queue}")["status"]["phase"] == "UnknownTypes", 30)
            seen = len(watch.samples)
            kube.until(lambda: len(watch.samples) >= seen + 30, 60)  # fifteen rounds of the operator
            assert {sample.replicas for sample in watch.samples[seen:]} == {0}
        header, line = kube("get", "tq", queue).splitlines()
        shown = dict(zip(header.split(), line.split(), strict=False))
        assert (shown["PHASE"], shown["DEPTH"]) == ("UnknownTypes", "1"), line
        assert "cluster_tasks:work" in line
        assert condition(kube.one(f"tq/{queue}"), "UnknownTypes")["status"] == "True"
        say(line)
        kube.apply(manifests.taskqueue(queue, scaling=NONE))
        assert set(release.ended(ids).values()) == {"COMPLETED"}
        say("a typing error: one start, then none in 30 s; with the mended image the same task COMPLETED")
