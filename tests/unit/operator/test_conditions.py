"""What a TaskQueue says of itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.operator import plan as planning
from services.operator import report
from services.operator.answer import Condition, TaskQueueStatus
from services.operator.views import History, QueueView, Scale
from tests.unit.operator.making import AT, Asked, fresh, ordered, pod, quick, spec_of, starting


def status(
    *pods: Any, want: int = 1, have: int = 1, spec: Any = None, history: History | None = None, **fields: Any
) -> TaskQueueStatus:
    known = {"demand": Asked(), "deployment": ordered(have), "generation": 3, **fields}
    view = QueueView(name="q", pods=pods, **known)
    spec = spec or quick(mode="Fixed", replicas=want)
    return planning.plan(spec, view, history or fresh(), now=1000.0, at=AT).status


def said(of: TaskQueueStatus, name: str) -> tuple[str, str] | None:
    found = next((one for one in of.conditions if one.type == name), None)
    return None if found is None else (found.status, found.reason)


def test_status_of_a_healthy_queue() -> None:
    made = status(pod("a", running=2), demand=Asked(queued=7, running=2, finished_minute=125), have=1)
    assert [one.type for one in made.conditions] == ["Ready", "Progressing"]
    assert said(made, "Ready") == ("True", "PodsReady")
    assert said(made, "Progressing") == ("False", "Settled")
    assert (made.phase, made.ready, made.busy_replicas, made.observed_generation) == ("Ready", "1/1", 1, 3)
    assert (made.depth.queued, made.finish_per_second) == (7, 2.1)
    assert made.selector == "app.kubernetes.io/name=taskflow,app.kubernetes.io/component=worker,taskflow.dev/queue=q"


def test_status_of_a_queue_without_work_is_ready() -> None:
    made = status(want=0, have=0)
    assert said(made, "Ready") == ("True", "Idle")
    assert made.phase == "Idle"


@pytest.mark.parametrize(
    ("fields", "reason", "phase"),
    [
        ({"settings_applied": False}, "SettingsPending", "Pending"),
        ({"deployment": None}, "DeploymentPending", "Pending"),
        ({"problems": ("spec.worker.template.spec.hostNetwork shares the node.",)}, "TemplateInvalid", "Degraded"),
        ({"conflict": "TaskQueue other has the queue q already."}, "Conflict", "Degraded"),
        ({"deleting": True}, "Deleting", "Deleting"),
    ],
)
def test_status_is_not_ready_and_says_why(fields: dict[str, Any], reason: str, phase: str) -> None:
    made = status(pod("a"), **fields)
    assert said(made, "Ready") == ("False", reason)
    assert made.phase == phase


def test_status_reason_names_what_somebody_must_mend() -> None:
    sentence = "spec.worker.template.spec.hostNetwork shares the node with the pod; leave it out."
    made = status(pod("a"), problems=(sentence,))
    assert made.reason == f"Refused: {sentence}"
    assert said(made, "TemplateInvalid") == ("True", "Refused")


def test_status_while_it_scales() -> None:
    up = status(pod("a"), starting("b"), have=2, want=2)
    assert said(up, "Ready") == ("False", "PodsPending")
    assert said(up, "Progressing") == ("True", "ScalingUp")
    down = status(pod("a"), pod("b", state="cordoned", running=1), have=2, want=1)
    assert said(down, "Ready") == ("True", "PodsReady")
    assert said(down, "Progressing") == ("True", "ScalingDown")
    assert (down.ready, down.draining_replicas, down.phase) == ("1/2", 1, "Scaling")
    assert said(status(pod("a"), deployment=ordered(1, rolling=True)), "Progressing") == ("True", "RollingOut")


def test_status_of_workers_that_fail() -> None:
    pulled = status(starting("a", waiting_reason="ImagePullBackOff"))
    assert said(pulled, "WorkersFailing") == ("True", "ImagePullBackOff")
    assert "kubectl describe pod a" in pulled.reason
    assert pulled.phase == "Degraded"
    assert said(status(starting("a", restarts=3, running=True)), "WorkersFailing") == ("True", "CrashLoopBackOff")
    homeless = status(starting("a", scheduled=False, age=61.0))
    assert said(homeless, "WorkersFailing") == ("True", "Unschedulable")
    quota = status(deployment=ordered(1, existing=0, failure="exceeded quota: pods"))
    assert said(quota, "WorkersFailing") == ("True", "PodsRefused")


def test_status_of_what_is_odd_but_not_broken() -> None:
    unknown = status(pod("a"), demand=Asked(unknown=10_000, unknown_types=("a:b", "c:d"), capped=True))
    assert said(unknown, "UnknownTypes") == ("True", "NoWorkerRunsThem")
    assert unknown.phase == "UnknownTypes"
    assert unknown.depth.queued == 10_000
    message = next(one.message for one in unknown.conditions if one.type == "UnknownTypes")
    assert message.startswith("At least 10000 waiting tasks are of types that no worker announced: a:b, c:d.")
    assert unknown.reason == message
    paused = status(pod("a"), demand=Asked(paused=True))
    assert (said(paused, "Paused"), paused.phase) == (("True", "Paused"), "Paused")
    lost = status(pod("a"), demand=None, workers_known=False)
    assert said(lost, "DepthUnknown") == ("True", "DatabaseUnreachable")
    assert status(pod("a"), spec=quick(mode="Fixed", hold="All")).phase == "Held"


def test_status_of_a_target_that_cannot_be_met() -> None:
    slow = status(spec=spec_of({"mode": "WaitTime", "targetWaitSeconds": 10}), have=0)
    assert said(slow, "TargetUnreachable") == ("True", "PodStart"), "a pod takes 20 s until it was measured"
    assert (
        said(status(spec=spec_of({"mode": "WaitTime", "targetWaitSeconds": 30}), have=0), "TargetUnreachable") is None
    )
    full = spec_of({"mode": "WaitTime", "minReplicas": 1, "maxReplicas": 2})
    waits = Asked(queued=4000, oldest_queued_seconds=99.0)
    made = status(pod("a"), pod("b"), have=2, spec=full, demand=waits)
    assert said(made, "TargetUnreachable") == ("True", "Bounded")


def test_conditions_keep_their_time_until_they_flip_and_stay_once_they_were_there() -> None:
    early = AT - timedelta(hours=1)
    before = TaskQueueStatus(
        conditions=(
            Condition(type="Ready", status="True", reason="PodsReady", last_transition_time=early),
            Condition(type="Paused", status="True", reason="Paused", last_transition_time=early),
            Condition(type="OfTheFuture", status="True", reason="New", last_transition_time=early),
        )
    )
    made = {one.type: one for one in status(pod("a"), status=before).conditions}
    assert made["Ready"].last_transition_time == early
    assert (made["Paused"].status, made["Paused"].last_transition_time) == ("False", AT)
    assert made["OfTheFuture"].status == "True"
    assert made["Ready"].observed_generation == 3


def test_status_is_written_at_once_when_programs_wait_for_it_and_rarely_for_numbers() -> None:
    old = status(pod("a"))
    more = old.model_copy(update={"oldest_queued_seconds": 7})
    assert not report.worth_writing(old, more, 9.9)
    assert report.worth_writing(old, more, 10.0)
    assert not report.worth_writing(old, old, 3600.0)
    assert report.worth_writing(old, status(pod("a"), demand=Asked(paused=True)), 0.0)
    change = Scale(from_=1, to=3, reason="40 queued", resource_version="1")
    assert report.worth_writing(old, report.scaled(old, change, AT), 0.0)


def test_status_remembers_a_change_by_hand_without_changing_its_time() -> None:
    spec = quick(replicas=4)
    first = status(pod("a"), spec=spec, history=fresh(manual=2))
    assert first.manual is not None
    assert (first.manual.replicas, first.manual.since) == (4, AT)
    again = status(pod("a"), spec=spec, history=fresh(manual=4, manual_since=940.4), status=first)
    assert again.manual == first.manual


def test_status_as_json_has_the_names_of_the_definition() -> None:
    made = report.body(report.scaled(status(pod("a")), Scale(from_=1, to=3, reason="x", resource_version=""), AT))
    assert made["lastScale"] == {"time": "2026-11-24T12:00:00Z", "from": 1, "to": 3, "reason": "x"}
    assert made["conditions"][0]["lastTransitionTime"] == "2026-11-24T12:00:00Z"
    assert TaskQueueStatus.model_validate(made).last_scale is not None


@given(st.floats(0, 1e12))
def test_status_rounds_ages_as_people_read_them(age: float) -> None:
    shown = status(pod("a"), demand=Asked(queued=1, oldest_queued_seconds=age)).oldest_queued_seconds
    assert 0 <= shown <= 1_000_000_000
    assert age > 1e9 or age - 60 <= shown <= age
