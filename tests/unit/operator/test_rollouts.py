"""A rollout that is stuck: old pods beyond what is wanted go once they hold nothing, and no other pod does."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.making import quick
from tests.unit.operator.rolling import RollingWorld


def busy_world(rand: Random, pods: int, *, chaos: bool = False) -> RollingWorld:
    """So many pods of template t0, some of which run tasks."""
    world = RollingWorld(rand, quick(mode="Fixed", replicas=pods), surge=1, chaos=chaos)
    world.length = 40
    for _ in range(60):
        world.waiting = max(world.waiting, 1)
        world.tick()
    return world


def stick(world: RollingWorld, rand: Random) -> None:
    """Begin a rollout that does not get on: without an image, or without quota."""
    if rand.random() < 0.5:
        world.roll("t1", stuck=True)
    else:
        world.quota = len(world.pods)
        world.stuck.add("t1")  # what little room there may be helps nobody
        world.roll("t1")
    for _ in range(20):
        world.tick()


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64))
def test_a_stuck_rollout_goes_down_and_interrupts_nothing(seed: int) -> None:
    rand = Random(seed)
    world = busy_world(rand, rand.randrange(1, 14), chaos=rand.random() < 0.7)
    stick(world, rand)
    for _ in range(3):
        wanted = rand.randrange(0, 14)
        world.spec = quick(mode="Fixed", replicas=wanted)
        if rand.random() < 0.3:
            world.roll(f"t{rand.randrange(2, 5)}", stuck=True)
            for _ in range(10):  # the Deployment itself cleans up what is not ready when its template changes
                world.tick()
            world.interrupted.clear()
        for _ in range(80):
            world.waiting = max(world.waiting, rand.randrange(3))
            world.tick()
            assert world.interrupted == []
    world.chaos = False
    old = len(world.of("t0"))
    wanted = rand.randrange(0, old + 1)
    world.spec = quick(mode="Fixed", replicas=wanted)
    for _ in range(600):
        world.waiting = max(world.waiting, 1)
        world.tick()
        assert world.interrupted == []
        if len(world.of("t0")) == wanted:
            break
    assert len(world.of("t0")) == wanted


@pytest.mark.parametrize("quota", [True, False])
@pytest.mark.parametrize("pods", [1, 2, 5, 9, 13])
def test_an_idle_old_pod_goes_while_the_others_run_tasks_without_end(pods: int, *, quota: bool) -> None:
    world = busy_world(Random(pods), pods)
    world.length = 10_000
    world.waiting = 4 * (pods - 1)
    for _ in range(80):
        world.tick()
    while world.waiting or sum(pod.holds for pod in world.pods.values()) < pods - 1:
        world.tick()
    idle = [pod.name for pod in world.pods.values() if not pod.holds]
    world.stuck.add("t1")
    world.quota = pods if quota else 1000
    world.roll("t1")
    for _ in range(20):
        world.tick()
    world.spec = quick(mode="Fixed", replicas=max(0, pods - len(idle)))
    for _ in range(100):
        world.tick()
    assert world.interrupted == []
    assert [name for name in idle if name in world.pods] == []
    assert world.replicas == pods - len(idle)


def test_a_rollout_that_gets_on_goes_on() -> None:
    world = busy_world(Random(3), 6)
    world.spec = quick(mode="Fixed", replicas=3)
    world.roll("t1")
    for _ in range(400):
        world.waiting = max(world.waiting, 1)
        world.tick()
    assert world.replicas == 3
    assert {pod.template for pod in world.pods.values()} == {"t1"}
    assert len(world.pods) == 3
    assert all(pod.ready for pod in world.pods.values())
