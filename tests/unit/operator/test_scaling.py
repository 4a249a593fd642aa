"""The scaler: what it wants, why, and what it never does."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.operator import windows
from services.operator.answer import LastScale, Manual, TaskQueueStatus
from services.operator.scaling import desired, wait_time
from services.operator.views import Desired, History, Scale
from tests.unit.operator.making import AT, Asked, fresh, quick, spec_of

if TYPE_CHECKING:
    from services.operator.spec import TaskQueueSpec

NOW = 10_000.0
HUGE = 1e308


def wish(spec: TaskQueueSpec, demand: Asked | None, have: int, history: History | None = None) -> Desired:
    return desired(spec, demand, have, history or fresh(), NOW)


def test_scaling_by_depth_divides_what_waits_and_runs_by_the_tasks_of_a_pod() -> None:
    assert wish(quick(), Asked(queued=9, running=4), 0).replicas == 4
    assert wish(quick(tasksPerReplica=10), Asked(queued=9, running=4), 0).replicas == 2


def test_scaling_says_why_as_a_person_would() -> None:
    spec = quick(tasksPerReplica=10)
    assert wish(spec, Asked(queued=40, oldest_queued_seconds=12.4), 1).reason == "40 queued, oldest 12 s"
    assert (
        wish(spec, Asked(queued=4, running=3, oldest_queued_seconds=2), 1).reason == "4 queued, oldest 2 s, 3 running"
    )
    assert wish(spec, Asked(), 0).reason == "0 queued, 0 running"
    assert wish(spec, Asked(queued=10_000, capped=True), 1).reason == "≥10000 queued"
    assert wish(quick(maxReplicas=8), Asked(queued=400), 8).reason == "400 queued; maxReplicas is 8"
    kept = wish(quick(minReplicas=1, idleToZeroSeconds=300), Asked(), 1)
    assert kept.reason == "0 queued, 0 running; minReplicas is 1"


@pytest.mark.parametrize("hold", ["All", "Up", "Down", "None"])
def test_scaling_holds_what_it_is_told_to_hold(hold: str) -> None:
    up = wish(quick(hold=hold, minReplicas=3), Asked(queued=400), 5)
    down = wish(quick(hold=hold, maxReplicas=3), Asked(), 5)
    assert up.replicas == (5 if hold in {"All", "Up"} else 100)
    assert down.replicas == (5 if hold in {"All", "Down"} else 0)


def test_scaling_holds_when_the_depth_is_not_known() -> None:
    held = wish(quick(minReplicas=8), None, 5)
    assert (held.replicas, held.limited_by) == (5, "depth")


def test_scaling_needs_no_depth_where_somebody_else_decides() -> None:
    assert wish(spec_of({"mode": "Fixed", "replicas": 3}), None, 0).replicas == 3
    bounded = wish(spec_of({"mode": "External", "replicas": 30}), None, 0)
    assert (bounded.replicas, bounded.reason) == (10, "scaling.replicas is 30; maxReplicas is 10")


def test_scaling_does_not_order_more_than_a_limit_can_use() -> None:
    limited = wish(quick(), Asked(queued=4000, max_concurrent=10), 1)
    assert (limited.replicas, limited.limited_by) == (3, "concurrency")


def test_scaling_does_not_count_types_that_nobody_runs() -> None:
    assert wish(quick(), Asked(unknown=10_000), 0).replicas == 0


def test_scaling_a_paused_queue_keeps_what_still_runs_and_adds_nothing() -> None:
    assert wish(quick(), Asked(paused=True, queued=4000, running=8), 1).replicas == 1
    assert wish(quick(), Asked(paused=True, queued=4000, running=8), 5).replicas == 2
    assert wish(quick(minReplicas=2), Asked(paused=True, queued=4000), 0).replicas == 2


def test_scaling_down_waits_for_the_window() -> None:
    spec = quick(scaleDown={"stabilizationSeconds": 300, "maxPods": 100, "periodSeconds": 1})
    busy = fresh(proposals=((NOW - 299, 7),))
    assert wish(spec, Asked(queued=8), 9, busy).replicas == 7
    assert wish(spec, Asked(queued=8), 9, fresh(proposals=((NOW - 301, 7),))).replicas == 2
    assert wish(spec, Asked(queued=8), 5, busy).replicas == 5, "the window never adds pods"


def test_scaling_bounds_are_stronger_than_window_and_steps() -> None:
    spec = spec_of({"maxReplicas": 3})
    assert wish(spec, Asked(queued=400), 8, fresh(proposals=((NOW, 8),))).replicas == 3
    assert wish(spec_of({"minReplicas": 30, "maxReplicas": 40}), Asked(), 1).replicas == 30


def test_scaling_takes_steps() -> None:
    spec = spec_of({"maxReplicas": 1000, "scaleDown": {"stabilizationSeconds": 0}})
    assert wish(spec, Asked(queued=4000), 0).replicas == 10
    assert wish(spec, Asked(queued=4000), 30).replicas == 60
    assert wish(spec, Asked(queued=4000), 10, fresh(ups=((NOW - 14, 10),))).replicas == 10
    assert wish(spec, Asked(queued=4000), 10, fresh(ups=((NOW - 15, 10),))).replicas == 20
    assert wish(spec, Asked(queued=4), 9).replicas == 7
    assert wish(spec, Asked(queued=4), 8, fresh(downs=((NOW - 59, 1),))).replicas == 7
    assert wish(spec, Asked(queued=4), 7, fresh(downs=((NOW - 59, 2),))).replicas == 7


def test_scaling_to_zero_only_after_idling() -> None:
    spec = quick(idleToZeroSeconds=300)
    idle = wish(spec, Asked(), 4, fresh(last_busy=NOW - 299))
    assert (idle.replicas, idle.limited_by) == (1, "idle")
    assert wish(spec, Asked(), 4, fresh(last_busy=NOW - 300)).replicas == 0


def test_scaling_by_hand_is_a_floor_for_an_hour() -> None:
    held = wish(quick(), Asked(), 1, fresh(manual=3, manual_since=NOW - 3540))
    assert (held.replicas, held.reason) == (3, "0 queued, 0 running; set to 3 by hand, a floor for 1 min more")
    assert wish(quick(), Asked(), 1, fresh(manual=3, manual_since=NOW - 3600)).replicas == 0
    assert wish(quick(), Asked(queued=40), 1, fresh(manual=3, manual_since=NOW)).replicas == 10
    assert wish(quick(maxReplicas=2), Asked(), 1, fresh(manual=3, manual_since=NOW)).replicas == 2


def test_windows_notice_a_change_by_hand_and_survive_a_restart() -> None:
    spec = quick(replicas=3)
    first = windows.remember(History(), spec, Asked(), (), NOW)
    assert windows.manual_floor(first, NOW) == (0, 0.0), "the first look is no change"
    changed = windows.remember(first, quick(replicas=5), Asked(), (), NOW)
    assert windows.manual_floor(changed, NOW + 600) == (5, 3000.0)
    status = TaskQueueStatus(
        observed_generation=2,
        desired_replicas=4,
        manual=Manual(replicas=5, since=AT),
        last_scale=LastScale(time=AT, from_=4, to=6),
    )
    again = windows.restored(status, 6, NOW, AT.replace(minute=10))
    assert windows.manual_floor(again, NOW) == (5, 3000.0)
    assert again.ups == ((NOW - 600, 2),)
    assert again.proposals == ((NOW, 4),), "a drain under way goes on"


def test_windows_keep_only_what_can_still_be_a_maximum() -> None:
    history = History()
    for now, pods in enumerate([5, 3, 4, 1]):
        history = windows.propose(history, pods, float(now))
    assert history.proposals == ((0.0, 5), (2.0, 4), (3.0, 1))


def test_windows_tell_arrivals_from_what_ended_and_what_waits() -> None:
    steady = History(backlog=tuple((NOW - ago, 100) for ago in range(60, 0, -5)))
    assert windows.arrivals(steady, Asked(queued=100, finished_minute=120), NOW) == pytest.approx(2.0)
    assert windows.arrivals(steady, Asked(queued=250), NOW) == pytest.approx(10.0), "a burst shows within 15 s"
    assert windows.arrivals(steady, Asked(), NOW) == 0.0
    assert windows.arrivals(History(), Asked(finished_minute=60), NOW) == 1.0


def test_history_notes_steps_by_their_direction() -> None:
    up = History().scaled(Scale(from_=2, to=5, reason="", resource_version=""), 1.0)
    both = up.scaled(Scale(from_=5, to=4, reason="", resource_version=""), 2.0)
    assert (both.ups, both.downs) == (((1.0, 3),), ((2.0, 1),))


# --- mode WaitTime

few = st.integers(0, 10_000)
rates = st.floats(0, 1000)
runs = st.floats(0.001, 100_000)
waits = st.integers(1, 3600)
inputs = st.fixed_dictionaries(
    {
        "queued": few,
        "running": few,
        "arrivals": rates,
        "run": runs,
        "oldest": st.floats(0, 100_000),
        "target": waits,
        "start": st.floats(0, 900),
        "concurrency": st.integers(1, 64),
    }
)


def test_wait_time_follows_littles_law_for_short_tasks_and_counts_slots_for_long_ones() -> None:
    same = {"running": 0, "oldest": 0, "target": 10, "start": 0, "concurrency": 1}
    assert wait_time(queued=0, arrivals=100, run=0.1, **same) == math.ceil(100 * 10 / 101 / 0.85)
    assert wait_time(queued=50, arrivals=0, run=100_000, **same) == math.ceil(50 / (1 + 1e-4) / 0.85)


def test_wait_time_hurries_when_a_task_is_overdue() -> None:
    same = {"queued": 100, "running": 0, "arrivals": 0.0, "run": 10.0, "target": 10, "start": 0, "concurrency": 4}
    assert wait_time(oldest=40, **same) > wait_time(oldest=10, **same)


@given(inputs, st.sampled_from(["queued", "running", "arrivals", "oldest"]), st.floats(0, 10_000))
def test_wait_time_never_wants_fewer_for_more(given_: dict[str, float], name: str, more: float) -> None:
    larger = {**given_, name: given_[name] + (int(more) if name in {"queued", "running"} else more)}
    assert wait_time(**larger) >= wait_time(**given_)


@given(inputs)
def test_wait_time_orders_no_more_than_a_slot_for_each_task_and_arrival(given_: dict[str, float]) -> None:
    horizon = max(given_["target"] - given_["start"], given_["target"] / 2)
    most = given_["queued"] + given_["running"] + given_["arrivals"] * horizon
    pods = wait_time(**given_)
    assert 0 <= pods <= math.ceil(most / given_["concurrency"] / 0.85) + 1
    assert pods >= 1 or not (given_["queued"] or given_["running"])


# --- whatever the mode

odd = st.one_of(st.floats(0, 1e6), st.sampled_from([0.0, 1e-300, HUGE, math.inf]))
demands = st.builds(
    Asked,
    paused=st.booleans(),
    max_concurrent=st.sampled_from([0, 1, 7, 1_000_000]),
    queued=few,
    running=few,
    oldest_queued_seconds=st.none() | odd,
    finished_minute=st.integers(0, 1_000_000),
    run_seconds=st.none() | odd,
)
steps = st.fixed_dictionaries({"maxPods": st.integers(1, 1000), "periodSeconds": st.integers(1, 1800)})


@st.composite
def specs(draw: st.DrawFn) -> TaskQueueSpec:
    low, high = sorted((draw(st.integers(0, 1000)), draw(st.integers(1, 1000))))
    scaling = {
        "mode": draw(st.sampled_from(["QueueDepth", "WaitTime", "External", "Fixed"])),
        "replicas": draw(st.integers(0, 1000)),
        "minReplicas": low,
        "maxReplicas": max(1, high),
        "tasksPerReplica": draw(st.integers(0, 100)),
        "targetWaitSeconds": draw(waits),
        "scaleUp": draw(steps),
        "scaleDown": {**draw(steps), "stabilizationSeconds": draw(st.integers(0, 3600))},
        "idleToZeroSeconds": draw(st.sampled_from([0, 1, 300, 86_400])),
        "hold": draw(st.sampled_from(["None", "None", "All", "Up", "Down"])),
    }
    return spec_of(scaling, worker={"concurrency": draw(st.integers(1, 64))})


moments = st.tuples(st.floats(NOW - 3600, NOW), st.integers(0, 1000))
histories = st.builds(
    History,
    proposals=st.lists(moments, max_size=3).map(tuple),
    ups=st.lists(moments, max_size=3).map(tuple),
    downs=st.lists(moments, max_size=3).map(tuple),
    backlog=st.lists(st.tuples(st.floats(NOW - 75, NOW), few), max_size=5).map(lambda some: tuple(sorted(some))),
    last_busy=st.floats(0, NOW),
    manual=st.integers(0, 1000),
    manual_since=st.none() | st.floats(0, NOW),
    starts=st.lists(st.floats(0, 900), max_size=5).map(tuple),
)


@given(specs(), st.none() | demands, st.integers(0, 1000), histories)
def test_scaling_stays_within_bounds_or_where_it_is_held(
    spec: TaskQueueSpec, demand: Asked | None, have: int, history: History
) -> None:
    said = desired(spec, demand, have, history, NOW)
    scaling = spec.scaling
    held = scaling.hold != "None" or said.limited_by == "depth"
    assert scaling.min_replicas <= said.replicas <= scaling.max_replicas or (held and said.replicas == have)
    assert said.reason
    assert "nan" not in said.reason
    if scaling.hold == "All":
        assert said.replicas == have
    if scaling.hold == "Up":
        assert said.replicas <= have
    if scaling.hold == "Down":
        assert said.replicas >= have


@given(specs(), demands, st.integers(0, 1000), histories, st.tuples(st.sampled_from(["queued", "running"]), few))
def test_scaling_never_wants_fewer_for_more_tasks(
    spec: TaskQueueSpec, demand: Asked, have: int, history: History, more: tuple[str, int]
) -> None:
    larger = replace(demand, **{more[0]: getattr(demand, more[0]) + more[1]})
    assert desired(spec, larger, have, history, NOW).replicas >= desired(spec, demand, have, history, NOW).replicas


@given(specs(), demands, st.integers(0, 1000), histories)
def test_scaling_reaches_zero_only_when_idle_or_told(
    spec: TaskQueueSpec, demand: Asked, have: int, history: History
) -> None:
    said = desired(spec, demand, have, history, NOW)
    if said.replicas or not have or spec.scaling.mode in {"External", "Fixed"}:
        return
    assert not demand.running
    assert demand.paused or not demand.queued
    assert history.last_busy is not None
    assert NOW - history.last_busy >= spec.scaling.idle_to_zero_seconds


@given(specs(), demands, st.integers(0, 1000), histories)
def test_scaling_does_not_flap_on_constant_input(
    spec: TaskQueueSpec, demand: Asked, have: int, history: History
) -> None:
    turns, now = [], NOW
    for _ in range(400):
        history = windows.remember(history, spec, demand, (), now)
        said = desired(spec, demand, have, history, now)
        if said.replicas != have:
            turns.append(said.replicas > have)
            change = Scale(from_=have, to=said.replicas, reason=said.reason, resource_version="")
            history, have = history.scaled(change, now), said.replicas
        history = windows.propose(history, said.wanted, now)
        now += 30.0
    changes = sum(one != other for one, other in pairwise(turns))
    assert changes <= 1, "a floor by hand or an old window may end once"
