"""The Deployment of a TaskQueue: made, kept, and never made of what nobody may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.operator import apply
from services.operator.views import Scale

if TYPE_CHECKING:
    from tests.integration.operator.world import World


def _template(**pod: Any) -> dict[str, Any]:
    return {"template": {"spec": pod}}


def _holds(world: World, kind: str, name: str = "text") -> str:
    found = world.condition(kind, name)
    assert found is not None, world.status(name)
    assert found["status"] == "True"
    return str(found["message"])


async def test_a_deployment_begins_with_no_replicas_and_no_apply_resets_them(world: World) -> None:
    world.taskqueue()
    await world.tick()
    assert world.replicas() == 0
    await world.submit(8)
    await world.tick()
    assert world.replicas() == 2
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": {"drainSeconds": 60}}})
    await world.tick()
    made = world.api.get("deployments", "team", "taskflow-text")
    assert made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 90
    assert world.replicas() == 2


async def test_a_crash_between_the_two_applies_of_a_new_deployment_does_no_harm(world: World) -> None:
    world.taskqueue()
    world.api.fail("PATCH .*fieldManager=taskflow-scaler", 500)
    await world.tick()
    assert world.replicas() == 0
    await world.tick()
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": {"drainSeconds": 60}}})
    await world.tick(2)
    assert world.replicas() == 0


async def test_the_budget_is_there(world: World) -> None:
    world.taskqueue()
    await world.tick()
    budget = world.api.get("poddisruptionbudgets", "team", "taskflow-text")
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


async def test_a_hostile_template_makes_no_deployment(world: World) -> None:
    hostile = {
        "mount": _template(containers=[{"name": "worker"}], volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
        "strong": _template(containers=[{"name": "worker", "securityContext": {"privileged": True}}]),
        "other": _template(serviceAccountName="admin"),
        "spy": _template(containers=[{"name": "worker", "envFrom": [{"secretRef": {"name": "keys"}}]}]),
    }
    for name, worker in hostile.items():
        world.taskqueue(name, worker=worker)
    await world.tick(2)
    for name in hostile:
        assert not world.deployed(name)
        assert _holds(world, "TemplateInvalid", name)
    assert "hostPath" in _holds(world, "TemplateInvalid", "mount")
    assert any(said.startswith("TemplateInvalid spec.worker.template") for said in world.events())


async def test_a_template_that_turned_hostile_leaves_the_workers_as_they_were(world: World) -> None:
    world.taskqueue()
    await world.tick()
    before = world.api.get("deployments", "team", "taskflow-text")["spec"]
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": _template(hostNetwork=True)}})
    await world.tick(2)
    assert world.api.get("deployments", "team", "taskflow-text")["spec"] == before
    assert _holds(world, "TemplateInvalid")


async def test_what_the_api_server_refuses_is_said_in_its_words(world: World) -> None:
    world.taskqueue(
        worker=_template(containers=[{"name": "worker", "volumeMounts": [{"name": "no", "mountPath": "/no"}]}])
    )
    await world.tick(2)
    assert not world.deployed()
    assert 'volumeMounts[0].name: Not found: "no"' in _holds(world, "TemplateInvalid")
    world.api.change("taskqueues", "team", "text", {"spec": {"worker": None}})
    await world.tick(2)
    assert world.deployed()
    assert world.condition("TemplateInvalid")["status"] == "False"  # type: ignore[index]


async def test_a_deployment_that_is_not_ours_is_left_alone(world: World) -> None:
    foreign = {
        "metadata": {"name": "taskflow-text", "namespace": "team"},
        "spec": {"replicas": 3, "template": {"metadata": {"labels": {}}, "spec": {}}},
    }
    world.api.put("deployments", foreign)
    world.taskqueue()
    await world.submit(40)
    await world.loop.tick()
    await world.loop.tick()
    assert world.api.get("deployments", "team", "taskflow-text")["spec"] == foreign["spec"]
    assert "not TaskFlow's" in _holds(world, "Conflict")


async def test_who_changes_the_deployment_by_hand_finds_it_mended(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    world.api.change(
        "deployments", "team", "taskflow-text", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
    )
    await world.tick(2, seconds=11)
    made = world.api.get("deployments", "team", "taskflow-text")
    assert made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 630


async def test_an_autoscaler_on_the_deployment_stops_the_scaling_and_says_so(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    rival = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "taskflow-text"}}
    world.api.put("horizontalpodautoscalers", {"metadata": {"name": "mine", "namespace": "team"}, "spec": rival})
    await world.submit(8)
    await world.tick(2, seconds=31)
    assert world.replicas() == 0
    assert "HorizontalPodAutoscaler mine" in _holds(world, "Conflict")
    world.api.delete("horizontalpodautoscalers", "team", "mine")
    await world.tick(2, seconds=31)
    assert world.replicas() == 2


async def test_an_autoscaler_may_aim_at_the_taskqueue(world: World) -> None:
    world.taskqueue(scaling={"mode": "External", "replicas": 3})
    rival = {"scaleTargetRef": {"apiVersion": "taskflow.dev/v1alpha1", "kind": "TaskQueue", "name": "text"}}
    world.api.put("horizontalpodautoscalers", {"metadata": {"name": "mine", "namespace": "team"}, "spec": rival})
    await world.tick(2)
    assert world.replicas() == 3


async def test_a_new_operator_makes_its_predecessors_writes_fail(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    old = world.api.get("deployments", "team", "taskflow-text")["metadata"]["resourceVersion"]
    world.loop = world.another()
    await world.rows("update leader set epoch = epoch + 1 where name = 'operator'")
    world.term.epoch += 1
    await world.tick()
    stale = Scale(from_=0, to=5, reason="from before", resource_version=old)
    try:
        await apply.scale(world.cluster, "team", "taskflow-text", stale)
    except apply.Conflict:
        return
    raise AssertionError("the predecessor's write was taken")


async def test_too_many_requests_and_a_server_that_is_away_are_waited_out(world: World) -> None:
    world.taskqueue()
    await world.tick(2)
    await world.submit(8)
    world.api.fail("PATCH .*/scale", 429, "slow down", **{"Retry-After": "1"})
    await world.tick()
    assert world.replicas() == 0
    await world.tick()
    assert world.replicas() == 2


async def test_a_list_that_grew_too_old_is_asked_for_again(world: World) -> None:
    world.taskqueue()
    world.api.fail("GET .*/taskqueues", 410, "too old resource version")
    await world.tick()
    assert world.deployed()
