"""The cause of a pod's death is written on the workers that it took with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.operator.world import World

STARTED = "2026-01-01T00:00:00Z"


async def _pods(world: World, count: int = 1) -> list[str]:
    world.taskqueue()
    await world.submit(4 * count)
    await world.tick(3)
    return await world.start_pods()


async def _death(world: World) -> dict[str, Any] | None:
    (row,) = await world.rows("select death from workers order by created_at limit 1")
    return json.loads(row["death"]) if row["death"] else None


def _ended(reason: str, code: int, *, again: str | None = None) -> list[dict[str, Any]]:
    end = {"terminated": {"reason": reason, "exitCode": code, "finishedAt": "2099-01-01T00:00:00Z"}}
    if again:
        return [{"name": "worker", "restartCount": 1, "state": {"running": {"startedAt": again}}, "lastState": end}]
    return [{"name": "worker", "restartCount": 0, "state": end}]


async def test_out_of_memory(world: World) -> None:
    (pod,) = await _pods(world)
    world.set_pod(pod, ready=False, containerStatuses=_ended("OOMKilled", 137))
    await world.tick()
    death = await _death(world)
    assert death is not None
    assert death["reason"] == "OOMKilled"
    assert "memory limit" in death["message"]


async def test_a_later_life_in_the_same_pod_is_not_the_one_that_died(world: World) -> None:
    (pod,) = await _pods(world)
    # The container was started again before this worker registered.
    world.set_pod(pod, ready=True, containerStatuses=_ended("OOMKilled", 137, again="2001-01-01T00:00:00Z"))
    await world.tick()
    assert await _death(world) is None


async def test_preempted(world: World) -> None:
    (pod,) = await _pods(world)
    conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for p"}]
    world.set_pod(pod, ready=False, conditions=conditions, phase="Failed")
    await world.tick()
    death = await _death(world)
    assert death is not None
    assert death["reason"] == "Preempted"


async def test_evicted_by_a_node_that_is_short_of_memory(world: World) -> None:
    (pod,) = await _pods(world)
    world.set_pod(pod, ready=False, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    await world.tick()
    death = await _death(world)
    assert death == {**(death or {}), "reason": "Evicted", "message": "The node was low on resource: memory."}


async def test_deleted_by_hand(world: World) -> None:
    (pod,) = await _pods(world)
    world.api.delete("pods", "team", pod)
    await world.tick()
    death = await _death(world)
    assert death is not None
    assert death["reason"] == "Deleted"


async def test_a_silent_node_is_no_death_while_the_worker_beats(world: World) -> None:
    (pod,) = await _pods(world)
    conditions = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    world.set_pod(pod, ready=False, conditions=conditions)
    await world.tick()
    assert await _death(world) is None
    await world.rows("update workers set beat_at = now() - interval '1 minute', created_at = now() - interval '1 hour'")
    await world.tick()
    death = await _death(world)
    assert death is not None
    assert death["reason"] == "NodeLost"


async def test_a_node_that_comes_back_leaves_no_suspicion(world: World) -> None:
    (pod,) = await _pods(world)
    conditions = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    world.set_pod(pod, ready=False, conditions=conditions)
    await world.tick()
    world.set_pod(pod, ready=True)
    await world.tick()
    await world.rows("update workers set beat_at = now() - interval '1 minute', created_at = now() - interval '1 hour'")
    await world.tick()
    assert await _death(world) is None


async def test_a_worker_that_ended_well_is_no_death(world: World) -> None:
    (pod,) = await _pods(world)
    world.set_pod(pod, ready=False, containerStatuses=_ended("Completed", 0))
    await world.tick()
    assert await _death(world) is None


async def test_images_that_cannot_be_pulled_are_a_condition_and_stop_the_growth(world: World) -> None:
    world.taskqueue()
    await world.submit(8)
    await world.tick(3)
    for pod in world.pods():
        waiting = [{"name": "worker", "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]
        world.set_pod(pod["metadata"]["name"], ready=False, phase="Pending", containerStatuses=waiting)
    await world.submit(24)
    await world.tick(3)
    assert world.replicas() == 2
    failing = world.condition("WorkersFailing")
    assert failing is not None
    assert failing["status"] == "True"
