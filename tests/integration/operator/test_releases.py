"""Two releases in one namespace: a TaskQueue belongs to one of them, and the other one touches nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from services.operator import default_queue, release
from services.operator.cluster import TASKQUEUES
from services.operator.objects import RELEASE_ANNOTATION

if TYPE_CHECKING:
    from tests.integration.operator.world import World

OTHER = "team/other"


def _objects(world: World) -> str:
    """All but events, without what the API server counts."""
    found = {" ".join(key): body for key, body in world.api.objects.items() if key[0] != "events"}
    return json.dumps(found, sort_keys=True)


def _release_of(world: World, name: str = "text") -> Any:
    return world.api.get("taskqueues", "team", name)["metadata"]["annotations"][RELEASE_ANNOTATION]


async def _served(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    await world.submit(8)
    await world.tick(2)
    assert world.replicas() == 2
    assert _release_of(world) == "team/rel"


async def test_the_second_release_says_conflict_and_touches_nothing(world: World) -> None:
    await _served(world)
    before, first = _objects(world), world.loop
    world.loop = world.another(OTHER)
    await world.tick(5)
    assert _objects(world) == before
    [said] = [said for said in world.events() if said.startswith("Conflict")]
    assert "team/other does not serve this TaskQueue: it belongs to the release team/rel." in said
    assert "kubectl -n team annotate --overwrite taskqueue text taskflow.dev/release=team/other" in said
    world.loop = first
    await world.submit(8)
    await world.tick(2)
    assert world.replicas() == 4


async def test_a_taskqueue_goes_to_the_release_that_its_annotation_names(world: World) -> None:
    await _served(world)
    first, second = world.loop, world.another(OTHER)
    world.api.change("taskqueues", "team", "text", {"metadata": {"annotations": {RELEASE_ANNOTATION: OTHER}}})
    await world.tick(8)
    assert [said for said in world.events() if "team/rel does not serve" in said]
    world.loop = second
    await world.tick(3)
    made = world.api.get("deployments", "team", "taskflow-text")
    assert made["metadata"]["labels"]["app.kubernetes.io/instance"] == "other"
    assert made["metadata"]["annotations"][RELEASE_ANNOTATION] == OTHER
    before = _objects(world)
    world.loop = first
    await world.tick(3)
    assert _objects(world) == before


@pytest.mark.parametrize("left", ["the label of an older operator", "our annotation"])
async def test_a_taskqueue_that_names_no_release_stays_with_that_of_its_deployment(world: World, left: str) -> None:
    await _served(world)
    world.api.change("taskqueues", "team", "text", {"metadata": {"annotations": {RELEASE_ANNOTATION: None}}})
    if left == "the label of an older operator":
        gone = {"metadata": {"annotations": {RELEASE_ANNOTATION: None}}}
        world.api.change("deployments", "team", "taskflow-text", gone)
    before, first = _objects(world), world.loop
    world.loop = world.another(OTHER)
    await world.tick(3)
    assert _objects(world) == before
    assert [said for said in world.events() if said.startswith("Conflict")]
    world.loop = first
    await world.tick(3)
    assert _release_of(world) == "team/rel"


async def test_of_two_that_take_a_taskqueue_at_once_one_gets_it(world: World) -> None:
    world.taskqueue()
    first, second = world.loop, world.another(OTHER)
    world.api.fail("PATCH .*/taskqueues/text", 409, "the object has been modified")
    await world.tick()
    assert not world.deployed()
    world.loop = second
    await world.tick(2)
    world.loop = first
    await world.tick(2)
    assert _release_of(world) == OTHER


async def made(world: World, owner: str) -> None:
    await default_queue.ensure(world.cluster, "team", "{}", world.clock, release=owner)


async def test_the_default_queue_is_made_once_and_belongs_to_who_made_it(world: World) -> None:
    await made(world, "team/rel")
    await made(world, OTHER)
    assert _release_of(world, "default") == "team/rel"


async def test_the_farewell_of_a_release_leaves_the_other_ones_alone(world: World) -> None:
    await _served(world)
    world.api.change("taskqueues", "team", "text", {"metadata": {"finalizers": ["taskflow.dev/drain"]}})
    before = _objects(world)
    assert await release.release(world.cluster, ["team"], OTHER) == 0
    await release.stop_workers(world.cluster, ["team"], OTHER)
    assert _objects(world) == before
    assert await release.release(world.cluster, ["team"], "team/rel") == 1
    await release.stop_workers(world.cluster, ["team"], "team/rel")
    assert world.replicas() == 0
    assert not (await world.cluster.get(TASKQUEUES, "team", "text"))["metadata"]["finalizers"]
