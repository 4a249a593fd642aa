"""Each watched namespace is taken by itself, and what could not be listed is unknown, never gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core import telemetry
from core.errors import Forbidden, Unavailable
from services.operator import main
from services.operator.listing import RELIST_SECONDS, RETRY_SECONDS
from services.operator.release import release, stop_workers

if TYPE_CHECKING:
    from tests.integration.operator.world import World

MANY = 10_000


@pytest.fixture
def world(world: World) -> World:
    """Two namespaces, and "lost" is the one that comes first."""
    world.namespaces = ("lost", "team")
    world.loop = world.another()
    return world


def _served(namespace: str) -> float:
    text = telemetry.exposed()[0].decode()
    line = f'taskflow_operator_namespace_served{{namespace="{namespace}"}} '
    return float(text.partition(line)[2].partition("\n")[0])


def _deployed(world: World, namespace: str, name: str) -> bool:
    return ("deployments", namespace, f"taskflow-{name}") in world.api.objects


async def _recorded(world: World) -> set[str]:
    return {row["name"] for row in await world.rows("select name from queues where taskqueue is not null")}


async def test_a_lost_namespace_stops_no_other_and_is_told(world: World) -> None:
    world.api.fail("GET .*/namespaces/lost/", 403, times=MANY)
    world.unwatched.add("lost")
    world.taskqueue("text")
    await world.tick(2)
    assert _deployed(world, "team", "text")
    assert (_served("lost"), _served("team")) == (0.0, 1.0)
    world.api.faults.clear()
    world.taskqueue("back", namespace="lost")
    await world.tick(2, seconds=RETRY_SECONDS)
    assert _deployed(world, "lost", "back"), "it came back, or was made later"
    assert _served("lost") == 1.0


@pytest.mark.parametrize("restarted", [True, False], ids=["a new operator", "the ten-minute list"])
@pytest.mark.parametrize("plural", ["taskqueues", "deployments", "pods"])
async def test_what_could_not_be_listed_is_unknown_and_never_gone(
    world: World, plural: str, *, restarted: bool
) -> None:
    world.taskqueue("far", namespace="lost", limits={"maxConcurrent": 7})
    world.taskqueue("text")
    await world.tick(2)
    before = world.api.get("deployments", "lost", "taskflow-far")
    assert await _recorded(world) == {"far", "text"}

    world.api.fail(f"GET .*/namespaces/lost/{plural}", 403, times=MANY)
    world.unwatched.add("lost")
    if restarted:
        world.loop = world.another()
    world.clock.advance(RELIST_SECONDS)
    world.api.delete("taskqueues", "team", "text")
    await world.tick(30)  # a minute
    assert await _recorded(world) == {"far"}, "what is gone elsewhere is found"
    assert world.api.get("deployments", "lost", "taskflow-far") == before
    [row] = await world.rows("select max_concurrent from queues where name = 'far'")
    assert row["max_concurrent"] == 7

    world.api.faults.clear()
    world.api.delete("taskqueues", "lost", "far")
    await world.tick(2, seconds=RETRY_SECONDS)
    assert await _recorded(world) == set(), "now it was listed, and is known to be gone"


async def test_nothing_is_decided_in_a_namespace_that_cannot_be_listed(world: World) -> None:
    world.taskqueue("far", namespace="lost")
    await world.tick(2)
    world.api.fail("GET .*/namespaces/lost/pods", 403, times=MANY)
    world.clock.advance(RELIST_SECONDS)
    await world.submit(4, name="far")
    world.api.requests.clear()
    await world.tick(5)
    asked = {(method, path.partition("?")[0]) for method, path in world.api.requests if "/namespaces/lost/" in path}
    assert {method for method, _ in asked} == {"GET"}, asked
    world.api.faults.clear()
    await world.tick(3, seconds=RETRY_SECONDS)
    assert world.api.get("deployments", "lost", "taskflow-far")["spec"]["replicas"] == 1


async def test_readiness_says_when_no_namespace_is_served(world: World) -> None:
    life = main.Life()
    assert life.ready(), "it stands by"
    life.leading, life.loop = True, world.loop
    world.api.fail("GET .*/namespaces/", 403, times=MANY)
    with pytest.raises(Unavailable, match="no namespace can be served: taskqueues cannot be listed"):
        await world.loop.tick()
    assert not life.ready()
    world.api.faults.clear()
    world.clock.advance(RETRY_SECONDS)
    await world.loop.tick()
    assert life.ready()


async def test_postgresql_that_is_away_delays_the_search_and_does_not_cancel_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.taskqueue("text", deletionPolicy="Orphan")
    await world.tick()
    world.api.delete("taskqueues", "team", "text")
    world.loop = world.another()
    whole = world.term.transaction
    monkeypatch.setattr(world.term, "transaction", _away)
    await world.loop.tick()
    monkeypatch.setattr(world.term, "transaction", whole)
    await world.tick(2)
    assert await _recorded(world) == set()


def _away() -> None:
    raise Unavailable("PostgreSQL is away")


async def test_autoscalers_of_one_namespace_are_known_when_another_cannot_be_read(world: World) -> None:
    aim = {"scaleTargetRef": {"kind": "Deployment", "name": "taskflow-text"}}
    rival = {"metadata": {"name": "mine", "namespace": "team"}, "spec": aim}
    world.api.put("horizontalpodautoscalers", rival)
    world.api.fail("GET .*/namespaces/lost/horizontalpodautoscalers", 403, times=MANY)
    world.taskqueue("text")
    await world.tick(2)
    said = world.condition("Conflict")
    assert said is not None
    assert "HorizontalPodAutoscaler mine" in said["message"]
    world.api.fail("GET .*/namespaces/team/horizontalpodautoscalers", 403, times=MANY)
    world.api.delete("horizontalpodautoscalers", "team", "mine")
    await world.tick(1, seconds=31)
    assert (world.condition("Conflict") or {})["status"] == "True", "not read is not gone"


async def test_the_farewell_lets_go_in_every_namespace_that_it_reaches(world: World) -> None:
    for namespace in ("lost", "team"):
        world.taskqueue("held", namespace=namespace, deletionPolicy="Wait")
    await world.tick(2)
    world.api.fail("GET .*/namespaces/lost/", 403, times=MANY)
    assert await release(world.cluster, world.namespaces) == 1
    assert not world.api.get("taskqueues", "team", "held")["metadata"].get("finalizers")
    await stop_workers(world.cluster, world.namespaces)
    world.api.faults.clear()
    world.api.fail("GET .*/namespaces/lost/", 503, times=MANY)
    with pytest.raises(Unavailable):  # the Job tries again
        await release(world.cluster, world.namespaces)
    world.api.faults.clear()
    world.api.fail("GET ", 403, times=MANY)
    with pytest.raises(Forbidden):
        await release(world.cluster, world.namespaces)
