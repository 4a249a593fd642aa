"""Whatever happens when: no scale-down interrupts a task, and what is wanted is reached when things calm down."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.operator.making import quick
from tests.unit.operator.world import World

CALM = 600  # steps within which everything settles: tasks take 30 at most


def settled(world: World) -> bool:
    processes = [one for pod in world.pods.values() for one in pod.processes]
    return (
        len(world.pods) == world.replicas
        and all(pod.ready and not pod.cost for pod in world.pods.values())
        and all(one.state == "alive" for one in processes)
    )


@pytest.mark.slow
@settings(max_examples=150)
@given(st.integers(0, 2**64))
def test_plan_interrupts_no_task_whoever_says_how_many(seed: int) -> None:
    rand = Random(seed)
    world = World(rand, quick(mode="Fixed", replicas=rand.randrange(9)))
    for _ in range(300):
        if rand.random() < 0.03:
            world.spec = quick(mode="Fixed", replicas=rand.randrange(9))
        if rand.random() < 0.1:
            world.waiting += rand.randrange(6)
        world.tick()
        assert world.interrupted == []
    world.chaos = False
    wanted = rand.randrange(9)
    world.spec = quick(mode="Fixed", replicas=wanted)
    for _ in range(CALM):
        world.waiting = max(world.waiting, 1)  # it stays busy: nothing is idle for long
        world.tick()
        assert world.interrupted == []
        if world.replicas == wanted and settled(world):
            break
    assert world.replicas == wanted
    assert settled(world)


@pytest.mark.slow
@settings(max_examples=75)
@given(st.integers(0, 2**64))
def test_plan_follows_the_depth_to_zero_and_interrupts_nothing(seed: int) -> None:
    rand = Random(seed)
    world = World(rand, quick(tasksPerReplica=2, maxReplicas=8))
    for _ in range(300):
        if rand.random() < 0.05:
            world.waiting += rand.randrange(20)
        world.tick()
        assert world.interrupted == []
    world.chaos = False
    for _ in range(CALM):
        world.tick()
        assert world.interrupted == []
    assert (world.waiting, world.replicas, len(world.pods)) == (0, 0, 0)


def test_plan_gives_cordoned_workers_back_when_demand_returns() -> None:
    rand = Random(1)
    world = World(rand, quick(mode="Fixed", replicas=6), chaos=False)
    world.length = 10_000
    world.waiting = 24
    for _ in range(100):
        world.tick()
    world.spec = quick(mode="Fixed", replicas=2)
    for _ in range(60):
        world.tick()
    cordoned = [one for pod in world.pods.values() for one in pod.processes if one.state == "cordoned"]
    assert (world.replicas, len(cordoned)) == (6, 4), "busy for ever, so they stay"
    world.spec = quick(mode="Fixed", replicas=6)
    for _ in range(20):
        world.tick()
    assert settled(world)
    assert len({pod.born for pod in world.pods.values()}) == 1, "not one of them was replaced"
    assert world.interrupted == []
