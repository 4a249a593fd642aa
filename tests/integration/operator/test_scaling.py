"""Replicas follow the queue, and no worker that runs a task is ever among those that go."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from core import queue_manager as queue
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from tests.integration.operator.world import World


async def _finish_all(world: World) -> None:
    await world.rows("update tasks set status = 'COMPLETED', finished_at = now() where status <> 'COMPLETED'")


async def test_a_queue_without_tasks_has_a_deployment_without_pods(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    assert world.replicas() == 0
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["status"] == "True"
    assert world.status()["selector"].endswith("taskflow.dev/queue=text")


async def test_tasks_bring_workers_and_an_event_says_why(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    await world.submit(8)
    await world.tick(2)
    assert world.replicas() == 2  # 4 a pod
    assert any(said.startswith("ScaledUp 0→2: 8 queued") for said in world.events())
    assert world.status()["lastScale"]["to"] == 2


async def test_two_steps_within_ten_seconds_are_one_event(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    await world.submit(4)
    await world.tick()
    assert len(world.events()) == 1
    await world.submit(4)
    await world.tick(seconds=3)
    await world.submit(4)
    await world.tick(seconds=3)
    assert world.replicas() == 3
    assert len(world.events()) == 1
    await world.tick(seconds=10)
    assert "ScaledUp 1→3: 12 queued" in " ".join(world.events()[1:])


async def test_an_unknown_depth_holds(world: World) -> None:
    world.taskqueue()
    await world.submit(8)
    await world.tick(3)
    await world.start_pods()
    await world.tick(2)
    pool = world.term.db._pool
    await pool.close()
    await world.tick(3)
    assert world.replicas() == 2
    unknown = world.condition("DepthUnknown")
    assert unknown is not None
    assert unknown["status"] == "True"
    await world.term.db.__aenter__()
    await world.submit(24)
    await world.tick(2)
    assert world.replicas() == 8
    assert set((await world.states()).values()) == {"alive"}


async def test_a_server_that_takes_no_writes_holds(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    world.api.fail("PATCH .*/scale", 500, times=50)
    await world.submit(8)
    await world.tick(3)
    assert world.replicas() == 0
    world.api.faults.clear()
    await world.tick()
    assert world.replicas() == 2


async def test_a_write_in_between_drops_the_decision(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    world.api.fail("PATCH .*/scale", 409, "the object has been modified")
    await world.submit(8)
    await world.tick()
    assert world.replicas() == 0
    assert world.events() == []
    await world.tick()
    assert world.replicas() == 2


async def test_idle_workers_are_cordoned_and_go_only_when_they_are_not_ready(world: World) -> None:
    world.taskqueue()
    await world.submit(8)
    await world.tick(3)
    started = await world.start_pods()
    assert len(started) == 2
    await _finish_all(world)
    await world.tick(4)
    assert set((await world.states()).values()) == {"cordoned"}
    assert world.replicas() == 2, "they are ready still: whatever the ReplicaSet took might be at work"
    for name in started:
        world.set_pod(name, ready=False)
    await world.tick(4)
    assert world.replicas() == 0
    assert world.pods() == []


async def test_a_busy_worker_stays_while_the_others_go(world: World) -> None:
    world.taskqueue()
    tasks = await world.submit(8)
    await world.tick(3)
    started = await world.start_pods()
    busy = next(iter(world.workers.values()))
    async with world.db.begin() as tx:
        assert await queue.claim(tx, tasks[:1], worker=busy, secret=SECRET, claim=uuid4(), types=["a:b"])
    await world.rows("update tasks set status = 'COMPLETED', finished_at = now() where status = 'QUEUED'")
    await world.tick(4)
    states = await world.states()
    assert sorted(states.values()) == ["alive", "cordoned"]
    assert states[busy] == "alive"
    for name in started:
        uid = world.api.get("pods", "team", name)["metadata"]["uid"]
        if world.workers[uid] != busy:
            world.set_pod(name, ready=False)
    await world.tick(4)
    assert world.replicas() == 1
    assert [world.workers[pod["metadata"]["uid"]] for pod in world.pods()] == [busy]


async def test_demand_that_returns_uncordons_first(world: World) -> None:
    world.taskqueue()
    await world.submit(8)
    await world.tick(3)
    await world.start_pods()
    await _finish_all(world)
    await world.tick(3)
    assert set((await world.states()).values()) == {"cordoned"}
    await world.submit(8)
    await world.tick(2)
    assert set((await world.states()).values()) == {"alive"}
    assert world.replicas() == 2


async def test_a_restarted_operator_goes_on_where_the_other_stopped(world: World) -> None:
    world.taskqueue()
    await world.submit(8)
    await world.tick(3)
    started = await world.start_pods()
    await _finish_all(world)
    await world.tick(3)
    world.loop = world.another()
    for name in started:
        world.set_pod(name, ready=False)
    await world.tick(5)
    assert world.replicas() == 0
    assert set((await world.states()).values()) == {"cordoned"}


async def test_a_watch_that_lost_everything_costs_time_only(world: World) -> None:
    world.taskqueue()
    await world.submit(8)
    await world.loop.tick()
    world.clock.advance(3)
    await world.loop.tick()
    assert world.replicas() == 2
    world.controllers()
    await world.start_pods()
    await _finish_all(world)
    # Nobody tells the mirror: it still believes in a Deployment without pods.
    for _ in range(3):
        world.clock.advance(70)
        await world.loop.tick()
    assert set((await world.states()).values()) == {"cordoned"}


async def test_one_bad_taskqueue_does_not_stop_the_others(world: World) -> None:
    world.taskqueue("bad")
    world.taskqueue("good")
    await world.tick(2)
    world.api.fail("/deployments/taskflow-bad", 500, "broken", times=1000)
    await world.submit(8, name="bad")
    await world.submit(8, name="good")
    await world.tick(3)
    assert world.replicas("good") == 2
    assert world.replicas("bad") == 0
    ready = world.condition("Ready", "bad")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", "OperatorFailed")


async def test_status_is_written_only_with_news(world: World) -> None:
    world.taskqueue()
    await world.tick(3)
    world.api.requests.clear()
    await world.tick(5)
    assert [asked for asked in world.api.requests if asked[0] == "PATCH"] == []
