"""Workers follow the queue, from none to many and back, and no attempt is interrupted by that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster import plot
from tests.cluster.conftest import LOGS
from tests.cluster.place import FULL
from tests.cluster.watch import Watch
from tests.system import history

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

INTERRUPTED = {"RETRIED", "RELEASED", "RESCUED", "FAILED", "QUARANTINED", "FENCED"}


def test_replicas_rise_from_none_with_the_queue_and_fall_to_none_after_it(
    release: Release, say: Callable[[str], None]
) -> None:
    number, most = (400, 8) if FULL else (40, 3)
    with release.queue("tide", scaling={"minReplicas": 0, "maxReplicas": most}) as queue:
        release.workers(queue, 0)
        with Watch(release, queue) as watch:
            began = time.monotonic()
            ids = release.submit(queue, [{"value": one, "seconds": 1.0} for one in range(number)])
            release.kube.until(lambda: release.replicas(queue), 30)
            woken = time.monotonic() - began
            release.ended(ids, 300)
            done = time.monotonic() - began
            release.workers(queue, 0)
            empty = time.monotonic() - began
            release.kube.until(lambda: watch.samples[-1].replicas == 0, 30)
        verdict = history.verify(release, ids).clean()
    assert verdict.events == {"CREATED": number, "STARTED": number, "COMPLETED": number}, "each task ran once"
    assert watch.most == most
    say(f"{number} tasks of 1 s, replicas 0 → {watch.most} → 0: the first pod ordered after {woken:.1f} s,")
    say(f"all completed after {done:.0f} s, no pod after {empty:.0f} s; each task ran once")
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "tide.csv").write_text(watch.table(), encoding="utf-8")
    picture = plot.plot(plot.read(watch.table()), f"{number} tasks of 1 s, minReplicas 0, maxReplicas {most}")
    (LOGS / "tide.svg").write_text(picture, encoding="utf-8")


@pytest.mark.timeout(1800)
def test_forced_scale_downs_interrupt_no_attempt(release: Release, say: Callable[[str], None]) -> None:
    """Every worker runs a 20-second task when maxReplicas is lowered; in each second round the operator dies, too."""
    rounds, seconds = (20, 20.0) if FULL else (2, 20.0)
    with release.queue("ebb", scaling={"minReplicas": 1, "maxReplicas": 3}, drain=120) as queue:
        ids: list[str] = []
        for turn in range(rounds):
            release.scaling(queue, minReplicas=3, maxReplicas=3)
            release.workers(queue, 3)
            ids += release.submit(queue, [{"value": one, "seconds": seconds} for one in range(4)])
            release.kube.until(lambda: busy(release, queue) == 3, 60)
            lower, began = 1 + turn % 2, time.monotonic()
            release.scaling(queue, minReplicas=lower, maxReplicas=lower)
            killed = turn % 2 == 1
            if killed:
                release.kube.until(lambda: cordoned(release, queue), 30)
                release.kube.kill(release.leader("operator"))
            release.workers(queue, lower, within=120)
            held = busy(release, queue)
            say(
                f"scale-down {turn + 1}: 3 → {lower} in {time.monotonic() - began:.0f} s while 3 ran a task"
                f"{', the operator killed during the drain' if killed else ''}; {held} of the rest busy"
            )
        release.ended(ids, 300)
        verdict = history.verify(release, ids).clean()
    assert INTERRUPTED & set(verdict.events) == set(), verdict.events
    assert verdict.events["STARTED"] == len(ids)
    say(f"{rounds} scale-downs, {len(ids)} tasks of {seconds:.0f} s: {len(ids)} attempts, 0 interrupted")


def busy(release: Release, queue: str) -> int:
    """How many workers run a task of the queue now."""
    return int(
        release.one(
            "select count(distinct worker_id) from tasks where queue = %s and status::text = 'IN_PROGRESS'", queue
        )
    )


def cordoned(release: Release, queue: str) -> int:
    """How many workers of the queue take no more tasks."""
    return int(release.one("select count(*) from workers where state = 'cordoned' and %s = any(queues)", queue))
