"""What is left of a TaskQueue that is deleted, by its deletion policy; and its settings in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.operator.release import release

if TYPE_CHECKING:
    from tests.integration.operator.world import World

FINALIZER = "taskflow.dev/drain"


def _finalizers(world: World, name: str = "text") -> list[str]:
    return world.api.get("taskqueues", "team", name)["metadata"].get("finalizers") or []


def _there(world: World, plural: str, name: str) -> bool:
    return (plural, "team", name) in world.api.objects


async def _statuses(world: World) -> dict[str, int]:
    return {
        row["status"]: row["n"] for row in await world.rows("select status::text, count(*) n from tasks group by 1")
    }


async def test_drain_needs_no_operator_and_is_forgotten_by_the_next(world: World) -> None:
    world.taskqueue("text", queueName="shared")
    await world.submit(8, name="shared")
    await world.tick(3)
    assert _finalizers(world) == []
    owner = world.api.get("deployments", "team", "taskflow-text")["metadata"]["ownerReferences"]
    assert [one["blockOwnerDeletion"] for one in owner] == [True]
    world.loop = world.another()  # while no operator was there
    world.api.delete("taskqueues", "team", "text")
    assert not _there(world, "deployments", "taskflow-text"), "it goes with its owner"
    world.taskqueue("next", queueName="shared")
    await world.tick(4, seconds=11)
    assert world.deployed("next"), "PostgreSQL has forgotten the first"
    assert await _statuses(world) == {"QUEUED": 8}


async def test_an_older_operators_finalizer_is_taken_off_drain_queues(world: World) -> None:
    for name in ("living", "deleted"):
        world.taskqueue(name)
    await world.tick()
    for name in ("living", "deleted"):
        world.api.change("taskqueues", "team", name, {"metadata": {"finalizers": ["a.b/c", FINALIZER]}})
    world.api.delete("taskqueues", "team", "deleted")
    world.loop = world.another()
    await world.tick()
    assert _finalizers(world, "living") == ["a.b/c"]
    assert _finalizers(world, "deleted") == ["a.b/c"]
    world.api.change("taskqueues", "team", "deleted", {"metadata": {"finalizers": [FINALIZER]}})
    await world.tick(2)
    assert not _there(world, "taskqueues", "deleted")
    rows = await world.rows("select name from queues where taskqueue is not null")
    assert [row["name"] for row in rows] == ["living"]


async def test_drain_does_not_scale_what_kubernetes_ends_or_orphans(world: World) -> None:
    """With --cascade=orphan the workers stay; with foreground each pod has its drainSeconds, busy or not."""
    world.taskqueue()
    await world.submit(8)
    await world.tick(3)
    await world.start_pods()
    world.api.change("taskqueues", "team", "text", {"metadata": {"finalizers": ["orphan"]}})
    world.api.delete("taskqueues", "team", "text")
    await world.tick(3)
    assert world.replicas() == 2
    assert set((await world.states()).values()) == {"alive"}


async def test_wait_lets_running_tasks_end_and_keeps_what_waits(world: World) -> None:
    world.taskqueue(deletionPolicy="Wait")
    await world.submit(8)
    await world.tick(3)
    started = await world.start_pods()
    await world.tick()
    assert _finalizers(world) == [FINALIZER]
    world.api.delete("taskqueues", "team", "text")
    await world.tick(3)
    assert set((await world.states()).values()) == {"cordoned"}
    assert world.replicas() == 2
    for name in started:
        world.set_pod(name, ready=False)
    await world.tick(4)
    assert not _there(world, "taskqueues", "text")
    assert not _there(world, "deployments", "taskflow-text"), "it goes with its owner"
    assert await _statuses(world) == {"QUEUED": 8}


async def test_purge_cancels_what_waits(world: World) -> None:
    world.taskqueue(deletionPolicy="Purge")
    await world.submit(8)
    await world.tick(2)
    world.api.delete("taskqueues", "team", "text")
    await world.tick(8)
    assert not _there(world, "taskqueues", "text")
    assert await _statuses(world) == {"CANCELLED": 8}


async def test_orphan_needs_nobody_and_leaves_the_workers(world: World) -> None:
    world.taskqueue(deletionPolicy="Orphan")
    await world.submit(8)
    await world.tick(3)
    await world.start_pods()
    assert _finalizers(world) == []
    world.api.delete("taskqueues", "team", "text")
    await world.tick(2)
    assert not _there(world, "taskqueues", "text")
    assert world.replicas() == 2
    assert set((await world.states()).values()) == {"alive"}


async def test_a_policy_that_becomes_orphan_lets_go_at_once(world: World) -> None:
    world.taskqueue(deletionPolicy="Wait")
    await world.tick()
    assert _finalizers(world) == [FINALIZER]
    world.api.change("taskqueues", "team", "text", {"spec": {"deletionPolicy": "Orphan"}})
    await world.tick(2)
    assert _finalizers(world) == []
    assert world.api.get("deployments", "team", "taskflow-text")["metadata"].get("ownerReferences", []) == []


async def test_release_lets_go_of_all_and_of_others_finalizers_of_none(world: World) -> None:
    world.taskqueue("one", deletionPolicy="Wait")
    world.taskqueue("two", deletionPolicy="Purge")
    await world.tick()
    world.api.change("taskqueues", "team", "two", {"metadata": {"finalizers": ["a.b/c", FINALIZER]}})
    assert await release(world.cluster, ("team",)) == 2
    assert _finalizers(world, "one") == []
    assert _finalizers(world, "two") == ["a.b/c"]


async def test_release_is_content_when_there_is_no_such_kind(world: World) -> None:
    world.api.fail("GET .*/taskqueues", 404)
    assert await release(world.cluster, ("team",)) == 0


async def test_settings_reach_postgresql_and_a_pause_by_rest_stays(world: World) -> None:
    world.taskqueue(limits={"maxConcurrent": 7}, worker={"concurrency": 3}, paused=False)
    await world.tick()
    (row,) = await world.rows("select * from queues where name = 'text'")
    assert (row["max_concurrent"], row["concurrency"], row["paused"]) == (7, 3, False)
    await world.rows("update queues set paused = true where name = 'text'")
    world.api.change("taskqueues", "team", "text", {"spec": {"limits": {"maxConcurrent": 9}}})
    await world.tick()
    (row,) = await world.rows("select * from queues where name = 'text'")
    assert (row["max_concurrent"], row["paused"]) == (9, True)


async def test_two_taskqueues_of_one_queue_are_a_conflict_until_the_first_goes(world: World) -> None:
    world.taskqueue("first", queueName="shared")
    await world.tick()
    world.taskqueue("second", queueName="shared")
    await world.tick(2)
    said = world.condition("Conflict", "second")
    assert said is not None
    assert said["status"] == "True"
    assert not world.deployed("second")
    assert world.condition("Conflict", "first") is None
    world.api.delete("taskqueues", "team", "first")
    await world.tick(4, seconds=11)
    assert world.deployed("second")


async def test_a_taskqueue_that_went_unseen_does_not_keep_its_queue(world: World) -> None:
    world.taskqueue("first", queueName="shared", deletionPolicy="Orphan")
    await world.tick()
    world.api.delete("taskqueues", "team", "first")
    world.loop = world.another()  # while no operator was there
    world.taskqueue("second", queueName="shared")
    await world.tick(4, seconds=11)
    assert world.deployed("second")
