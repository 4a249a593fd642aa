"""The planner, case by case. What it promises under everything at once is in test_plan_simulated."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.operator import plan as planning
from services.operator.views import History, Plan, QueueView
from tests.unit.operator.making import AT, Asked, fresh, ordered, pod, quick, starting, worker_of

IDLE = {"state": "cordoned", "ready": False}


def plan(pods: list[Any], *, have: int, want: int, history: History | None = None, **fields: Any) -> Plan:
    known = {"demand": Asked(), "deployment": ordered(have, existing=len(pods)), **fields}
    view = QueueView(name="q", pods=tuple(pods), **known)
    return planning.plan(quick(mode="Fixed", replicas=want), view, history or fresh(), now=1000.0, at=AT)


def names(workers: tuple[Any, ...], *pods: str) -> bool:
    return set(workers) == {worker_of(name) for name in pods}


def test_plan_scales_up_at_once() -> None:
    made = plan([pod("a")], have=1, want=4)
    assert str(made.scale) == "ScaledUp 1→4: scaling.replicas is 4"
    assert made.scale is not None
    assert made.scale.resource_version == "1"


def test_plan_changes_nothing_when_all_is_well() -> None:
    made = plan([pod("a"), pod("b", running=3)], have=2, want=2)
    assert (made.scale, made.cordon, made.uncordon, made.mark, made.unmark, made.soon) == (None, (), (), (), (), False)


def test_plan_goes_down_step_by_step() -> None:
    at_first = plan([pod("a"), pod("b", running=1)], have=2, want=1)
    assert names(at_first.cordon, "a"), "the idle one"
    assert (at_first.scale, at_first.mark, at_first.soon) == (None, (), True)
    told = plan([pod("a", state="cordoned"), pod("b", running=1)], have=2, want=1)
    assert (told.cordon, told.mark, told.scale) == ((), (), None), "still ready: a claim may be under way"
    idle = plan([pod("a", **IDLE), pod("b", running=1)], have=2, want=1)
    assert (idle.mark, idle.scale) == (("a",), None)
    marked = plan([pod("a", **IDLE, marked=True), pod("b", running=1)], have=2, want=1)
    assert str(marked.scale) == "ScaledDown 2→1: scaling.replicas is 1"


def test_plan_lowers_only_by_what_may_go() -> None:
    pods = [pod("a", **IDLE, marked=True), pod("b", state="cordoned", running=1), pod("c", running=1)]
    made = plan(pods, have=3, want=1)
    assert made.scale is not None
    assert made.scale.to == 2


@pytest.mark.parametrize(
    "risk",
    [
        starting("x", running=True),
        pod("x", ready=False, running=2),
        pod("x", state="cordoned", ready=False, running=2),
        pod("x", state="draining", ready=False),
        pod("x", **IDLE, restarts=1),
    ],
    ids=["starts", "probe failed", "cordoned, probe failed", "drains", "restarted"],
)
def test_plan_lowers_nothing_while_another_pod_could_be_taken(risk: Any) -> None:
    made = plan([pod("a", **IDLE, marked=True), risk, pod("b", running=1)], have=3, want=1)
    assert made.scale is None


def test_plan_takes_a_restarted_pod_again_after_a_minute() -> None:
    history = fresh(restarts=(("a", 1, 940.0),))
    assert plan([pod("a", **IDLE, marked=True, restarts=1)], have=1, want=0, history=history).scale is not None
    assert plan([pod("a", **IDLE, marked=True, restarts=2)], have=1, want=0, history=history).scale is None


def test_plan_waits_for_the_replica_set() -> None:
    idle = [pod("a", **IDLE, marked=True), pod("b", **IDLE, marked=True)]
    behind = plan([*idle, pod("c", running=1), pod("d", running=1)], have=3, want=2)
    assert (behind.scale, behind.uncordon, behind.unmark) == (None, (), ()), "one of the two is going right now"
    creating = plan([*idle, pod("c", running=1)], have=5, want=1, deployment=ordered(5, existing=4))
    assert creating.scale is None


def test_plan_takes_back_an_order_that_cannot_be_filled() -> None:
    made = plan([pod("a", running=1), pod("b", running=1)], have=5, want=2, deployment=ordered(5, existing=2))
    assert made.scale is not None
    assert made.scale.to == 2, "a quota: three pods were never made"


def test_plan_lowers_nothing_in_a_rollout_except_to_nothing() -> None:
    idle = [pod("a", **IDLE, marked=True), pod("b", **IDLE, marked=True)]
    rolling = ordered(2, existing=3, rolling=True)
    assert plan([*idle, pod("c")], have=2, want=1, deployment=rolling).scale is None
    gone = plan(idle, have=1, want=0, deployment=rolling)
    assert gone.scale is not None


def test_plan_lets_a_rollout_have_its_surge() -> None:
    rollout = ordered(2, existing=3, rolling=True, replacing=True)
    old = [pod("a", running=1), pod("b", running=1)]
    idle = plan([*old, pod("new", age=5.0)], have=2, want=2, deployment=rollout)
    assert (idle.cordon, idle.mark, idle.scale) == ((), (), None), "the rollout waits for it to be ready"
    stopped = plan([*old, pod("new", **IDLE)], have=2, want=2, deployment=rollout)
    assert names(stopped.uncordon, "new")
    assert plan([*old, pod("new")], have=2, want=1, deployment=rollout).cordon == ()
    gone = plan([*old, pod("new")], have=2, want=0, deployment=rollout)
    assert names(gone.cordon, "a", "b", "new"), "a deletion must not wait for a rollout that never ends"


def test_plan_drops_pods_that_never_ran() -> None:
    pending = starting("x", scheduled=False)
    assert plan([pending, pod("a", running=1)], have=2, want=1).mark == ("x",)
    made = plan([starting("x", scheduled=False, marked=True), pod("a", running=1)], have=2, want=1)
    assert made.cordon == ()
    assert made.scale is not None


def test_plan_gives_up_on_a_pod_that_never_registers() -> None:
    assert plan([starting("x", running=True, age=599.0)], have=1, want=0).mark == ()
    assert plan([starting("x", running=True, age=601.0)], have=1, want=0).mark == ("x",)


def test_plan_swaps_a_busy_victim_for_an_idle_one_unless_tasks_wait() -> None:
    pods = [pod("a", state="cordoned", running=1), pod("b")]
    swapped = plan(pods, have=2, want=1)
    assert names(swapped.uncordon, "a")
    assert names(swapped.cordon, "b")
    kept = plan(pods, have=2, want=1, demand=Asked(queued=5))
    assert (kept.cordon, kept.uncordon) == ((), ())


def test_plan_uncordons_before_it_lowers() -> None:
    pods = [pod("a", **IDLE, marked=True), pod("b", **IDLE, marked=True), pod("c")]
    made = plan(pods, have=3, want=2)
    assert len(made.uncordon) == 1
    assert len(made.unmark) == 1
    assert made.scale is None


def test_plan_returns_workers_when_demand_does() -> None:
    made = plan([pod("a", state="cordoned", running=1), pod("b", **IDLE, marked=True)], have=2, want=4)
    assert names(made.uncordon, "a", "b")
    assert made.unmark == ("b",)
    assert made.scale is not None
    assert made.scale.to == 4


def test_plan_touches_nobody_it_does_not_know() -> None:
    made = plan([pod("a"), starting("b", scheduled=False)], have=2, want=0, workers_known=False, demand=None)
    assert (made.scale, made.cordon, made.mark) == (None, (), ())
    other = plan([pod("a")], have=1, want=5, conflict="an HPA scales it")
    assert (other.scale, other.desired.reason) == (None, "an HPA scales it")


def test_plan_orders_no_more_while_half_of_the_pods_fail() -> None:
    bad = starting("x", waiting_reason="ImagePullBackOff")
    made = plan([bad, pod("a")], have=2, want=5)
    assert made.scale is None
    assert made.desired.reason.endswith("1 of 2 pods do not come up, so no more are ordered")
    assert plan([bad, pod("a"), pod("b")], have=3, want=5).scale is not None


def test_plan_ignores_pods_that_are_already_going() -> None:
    made = plan([pod("a", deleting=True, running=3), pod("b", running=1)], have=1, want=1)
    assert (made.cordon, made.soon, made.status.ready) == ((), False, "1/1")


@pytest.mark.parametrize("policy", ["Wait", "Purge", "Orphan"])
def test_plan_a_deletion(policy: str) -> None:
    spec = quick(hold="All", minReplicas=2).model_copy(update={"deletion_policy": policy})

    def step(*pods: Any, have: int) -> Plan:
        view = QueueView(name="q", deleting=True, pods=pods, deployment=ordered(have), demand=Asked(queued=3))
        return planning.plan(spec, view, fresh(), now=1000.0, at=AT)

    first = step(pod("a", running=1), pod("b", state="cordoned"), have=2)
    if policy == "Orphan":
        assert (first.cordon, first.orphan, first.finalize) == ((), True, False)
        assert names(first.uncordon, "b")
        last = step(pod("a", running=1), pod("b"), have=2)
        assert (last.finalize, last.scale) == (True, None)
        return
    assert names(first.cordon, "a")
    assert (first.finalize, first.purge) == (False, policy == "Purge")
    done = step(pod("a", **IDLE, marked=True), pod("b", **IDLE, marked=True), have=2)
    assert done.scale is not None
    assert (done.scale.to, done.finalize) == (0, False)
    assert step(have=0).finalize
    assert step(pod("a", deleting=True), have=0).finalize


def test_plan_leaves_a_deletion_with_drain_to_kubernetes() -> None:
    """The TaskQueue may still be there: deleted with --cascade=foreground or orphan, or held by somebody else."""
    pods = (pod("a", running=1), pod("b", deleting=True, running=1), pod("c", state="cordoned"))
    made = plan(pods[:2], have=2, want=0, deleting=True)
    assert (made.cordon, made.mark, made.scale, made.finalize, made.orphan) == ((), (), None, False, False)
    assert names(plan([pods[0], pods[2]], have=2, want=0, deleting=True).uncordon, "c")


def test_plan_a_deletion_without_a_deployment_is_over_at_once() -> None:
    view = QueueView(name="q", deleting=True)
    waits = quick().model_copy(update={"deletion_policy": "Wait"})
    assert planning.plan(waits, view, History(), now=0.0, at=AT).finalize


def test_plan_measures_how_long_pods_take_to_come_up() -> None:
    seen = plan([pod("a", age=500.0), starting("b", running=True)], have=2, want=2).history
    later = plan([pod("a", age=505.0), pod("b", age=17.0)], have=2, want=2, history=seen).history
    assert later.starts == (17.0,), "a was ready before the first look"
    assert math.isclose(later.last_busy or 0.0, 0.0)
