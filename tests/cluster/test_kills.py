"""Pods die under load, by force: nothing is lost, nothing is wrong, and keyed clients see no 500."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.load import Load
from tests.cluster.place import FULL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

KINDS = ("worker", "scheduler", "api", "redis-high", "operator", "redis-low")
KILLS = 30 if FULL else 5
BUSIEST = """
select facts->>'pod' from workers join tasks on tasks.worker_id = workers.id
where tasks.queue = %s and tasks.status::text = 'IN_PROGRESS' and workers.state = 'alive'
group by 1 order by count(*) desc limit 1
"""
REASONS = """
select message, count(*) from task_events join tasks on tasks.id = task_events.task_id
where tasks.queue = %s and event_type::text = 'RESCUED' group by 1
"""
# Whatever interrupts attempts here is not their own doing.
BLAMELESS = {"RESCUED", "RELEASED"}


@pytest.mark.timeout(1800)
def test_pods_killed_under_load_lose_and_spoil_nothing(release: Release, say: Callable[[str], None]) -> None:
    """Workers, the leading scheduler and operator, the API and both Redis, one after the other and then by chance."""
    chance = random.Random(4)  # the same order in each run
    plan = [*KINDS, *chance.choices(KINDS, weights=(8, 5, 5, 3, 2, 3), k=KILLS)][:KILLS]
    scaling = {"minReplicas": 3, "maxReplicas": 3}
    with release.queue("kills", scaling=scaling, drain=20) as queue:
        release.workers(queue, 3)
        task = {"type": "cluster_tasks:nap", "payload": {"seconds": 5.0}}
        with Load(release, queue, clients=4, pace=0.4, **task) as load:
            for number, kind in enumerate(plan, 1):
                victim = one_of(release, kind, queue, chance)
                began = time.monotonic()
                release.kube.kill(victim)
                load.more(20)
                recovered = time.monotonic() - began
                release.settled()
                release.workers(queue, 3)
                say(f"kill {number}: {victim}; 20 more tasks completed within {recovered:.0f} s")
        verdict = load.verify()
        load.patient()
        reasons = release.rows(REASONS, queue)
    interrupted = {name: count for name, count in verdict.events.items() if name in BLAMELESS | {"FENCED"}}
    assert BLAMELESS & set(interrupted), "the kills met nothing, so this has shown nothing"
    assert verdict.charged == 0
    assert any("Deleted" in (found["message"] or "") for found in reasons), reasons
    say(f"{len(plan)} kills, {len(load.answered)} tasks: lost 0, wrong 0; interrupted and repeated: {interrupted}")
    say(f"why, as the attempts tell it: {[(found['message'], found['count']) for found in reasons]}")
    say(f"what clients met: {dict(load.ways.most_common(12))}; the slowest answer took {load.slowest:.1f} s")


def one_of(release: Release, kind: str, queue: str, chance: random.Random) -> str:
    """A pod to kill: the leader where there is one, the worker that runs the most, else any."""
    if kind in {"scheduler", "operator"}:
        return release.leader(kind)
    if kind == "worker":
        return str(release.one(BUSIEST, queue))
    return chance.choice(release.kube.ready(kind))
