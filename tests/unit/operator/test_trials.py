"""A type that nobody announced is tried by one pod, once for each template and each oldest task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.operator.plan import plan
from services.operator.views import History, Plan, PodView, QueueView
from tests.unit.operator.making import AT, Asked, fresh, ordered, pod, quick, starting

NEW = {"unknown": 1, "unknown_types": ("new:type",), "unknown_seconds": 10.0}
NOW = 1000.0


def planned(
    *pods: PodView, have: int = 0, template: str = "t1", history: History | None = None, now: float = NOW, **demand: Any
) -> Plan:
    view = QueueView(
        name="q",
        pods=pods,
        demand=Asked(**{**NEW, "announced_seconds": 60.0, "announced_template": "t1", **demand}),
        deployment=ordered(have, template=template, existing=len(pods)),
    )
    return plan(quick(), view, history or fresh(), now=now, at=AT)


def wanted(*pods: PodView, **how: Any) -> int:
    return planned(*pods, **how).desired.replicas


def test_a_type_that_came_after_the_last_registration_asks_for_one_pod() -> None:
    made = planned(unknown=500)
    assert made.desired.replicas == 1
    assert made.desired.reason.startswith("500 queued of types that no worker has announced (new:type)")
    assert made.scale is not None


def test_a_type_that_was_there_at_the_last_registration_asks_for_none() -> None:
    assert wanted(announced_seconds=5.0) == 0


def test_another_template_than_the_one_that_registered_last_asks_for_one_pod() -> None:
    assert wanted(announced_seconds=5.0, announced_template="t0") == 1


@pytest.mark.parametrize("template", ["t1", ""])
def test_while_a_worker_of_the_present_template_lives_nothing_is_asked_for(template: str) -> None:
    live = pod("a", template=template)
    assert wanted(live, have=1, template=template, announced_template=template) == 0
    assert wanted(replace(live, template="t0"), have=1, template=template) == 1
    assert wanted(starting("a", template=template), have=1, template=template) == 1


def test_a_paused_queue_tries_nothing() -> None:
    assert wanted(paused=True) == 0


def test_known_types_count_beside_unknown_ones() -> None:
    assert wanted(queued=9) == 3


def test_a_worker_that_does_not_tell_its_template_is_tried_once() -> None:
    """An older worker: PostgreSQL hears of it, but neither when nor from which template."""
    said = {"announced_template": "", "announced_seconds": 3600.0}
    first = planned(**said)
    assert first.desired.replicas == 1
    live = planned(pod("a", template="t1"), have=1, history=first.history, now=NOW + 20, unknown_seconds=30.0, **said)
    assert live.desired.replicas == 0
    after = {"history": live.history, **said}
    assert wanted(now=NOW + 60, unknown_seconds=70.0, **after) == 0, "the same task, tried already"
    assert wanted(now=NOW + 60, unknown_seconds=5.0, **after) == 1, "a task that came after the trial"
    assert wanted(now=NOW + 60, unknown_seconds=70.0, template="t2", **after) == 1, "another template"


def test_the_last_pod_of_a_trial_stays_for_the_idle_time() -> None:
    """The idle time begins when the worker has registered, not when the queue ran its last task."""
    spec = quick(idleToZeroSeconds=30)
    view = QueueView(
        name="q",
        demand=Asked(**{**NEW, "announced_seconds": 60.0, "announced_template": "t1"}),
        deployment=ordered(1, template="t1", existing=0),
    )
    trying = plan(spec, view, fresh(), now=NOW, at=AT)
    assert trying.trying
    view = replace(view, pods=(pod("a", template="t1"),))
    assert plan(spec, view, trying.history, now=NOW + 29, at=AT).desired.replicas == 1
    assert plan(spec, view, trying.history, now=NOW + 31, at=AT).desired.replicas == 0
