"""A queue without workers finds out whether its image runs a type that nobody announced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.operator.objects import HASH_LABEL, label_of

if TYPE_CHECKING:
    from tests.integration.operator.world import World

IMAGE = {"template": {"spec": {"containers": [{"name": "worker", "image": "example.org/mine:1"}]}}}


async def _to_zero(world: World) -> None:
    for name in [pod["metadata"]["name"] for pod in world.pods()]:
        await world.tick(2)
        world.set_pod(name, ready=False)
    await world.tick(3)
    assert world.replicas() == 0
    await world.rows("update workers set state = 'dead' where state <> 'dead'")
    world.workers.clear()


async def _serve_once(world: World) -> None:
    """A worker of the default image comes, announces a:b, and goes."""
    world.taskqueue()
    await world.tick(2)
    await world.submit(1)
    await world.tick(2)
    await world.start_pods()
    await world.rows("update tasks set status = 'COMPLETED', finished_at = now()")
    await _to_zero(world)


async def test_a_new_type_of_a_new_image_starts_on_a_queue_without_workers(world: World) -> None:
    await _serve_once(world)
    await world.submit(3, kind="new:type")  # before the image is there
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": IMAGE}})
    await world.tick(2)
    assert world.replicas() == 1
    await world.start_pods(types=("new:type",))
    await world.tick(2)
    assert world.replicas() == 1
    assert "UnknownTypes" not in [one["type"] for one in world.status()["conditions"] if one["status"] == "True"]


async def test_a_typing_error_costs_one_start_and_an_image_that_is_mended_is_tried(world: World) -> None:
    await _serve_once(world)
    await world.submit(1, kind="no:such")
    await world.tick(2)
    assert world.replicas() == 1
    await world.start_pods()
    await _to_zero(world)
    world.loop = world.another()  # whatever the operator remembers, PostgreSQL knows
    for _ in range(30):
        await world.tick(seconds=10)
        assert world.replicas() == 0
    assert world.status()["phase"] == "UnknownTypes"
    assert world.status()["depth"]["queued"] == 1
    assert "no:such" in world.status()["reason"]
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": IMAGE}})
    await world.tick(2)
    assert world.replicas() == 1


async def test_the_template_carries_its_hash_and_a_deployment_of_an_older_operator_keeps_its_pods(
    world: World,
) -> None:
    world.taskqueue()
    await world.tick(2)
    made = world.api.get("deployments", "team", "taskflow-text")
    label = label_of(made)
    assert label == made["metadata"]["annotations"]["taskflow.dev/template-hash"]
    # As an older operator left it: the same template without our label and our variable.
    template = made["spec"]["template"]
    del template["metadata"]["labels"][HASH_LABEL]
    [worker] = template["spec"]["containers"]
    worker["env"] = [one for one in worker["env"] if one["name"] != "TASKFLOW_POD_TEMPLATE"]
    world.api.put("deployments", made)
    world.loop = world.another()
    await world.tick(3)
    kept = world.api.get("deployments", "team", "taskflow-text")["spec"]["template"]
    assert kept == template
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": IMAGE}})
    await world.tick(2)
    changed = label_of(world.api.get("deployments", "team", "taskflow-text"))
    assert changed not in {"", label}
