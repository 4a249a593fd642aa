"""How many tasks a child may hold: as many as run at once until they have shown to be short, and after a long one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.ordering import Lane
from services.worker.prefetch import AHEAD_BYTES, AHEAD_SECONDS, MOST, Prefetch

times = st.floats(0, 1e5)
lanes = st.sampled_from([(Lane.SYNC, 1), (Lane.ASYNC, 1), (Lane.ASYNC, 100), (Lane.ASYNC, 5000)])
Kind = tuple[Lane, int]


def after(kind: Kind, *seconds: float) -> Prefetch:
    made = Prefetch(*kind, list)
    for one in seconds:
        made.took(one)
    return made


@given(lanes, st.lists(times, max_size=200))
def test_there_is_always_room_for_what_runs_at_once_and_never_for_more_than_the_most(
    kind: Kind, took: list[float]
) -> None:
    lane, slots = kind
    assert slots <= after(kind, *took).most() <= max(slots, MOST[lane])


@given(lanes)
def test_nothing_is_taken_ahead_before_anything_has_run(kind: Kind) -> None:
    assert after(kind).most() == kind[1]


@given(lanes, st.lists(times, max_size=50), st.floats(AHEAD_SECONDS, 1e5))
def test_one_long_run_ends_it_at_once(kind: Kind, took: list[float], long: float) -> None:
    assert after(kind, *took, long).most() == kind[1]


@given(lanes, st.floats(0, 0.4), st.integers(0, 100))
def test_short_runs_earn_the_most_in_the_end(kind: Kind, share: float, more: int) -> None:
    lane, slots = kind
    assert after(kind, *[share * AHEAD_SECONDS / MOST[lane]] * (120 + more)).most() == max(slots, MOST[lane])


@given(lanes, st.lists(times, max_size=50), times, times)
def test_a_longer_run_never_earns_more(kind: Kind, took: list[float], one: float, other: float) -> None:
    assert after(kind, *took, max(one, other)).most() <= after(kind, *took, min(one, other)).most()


@given(st.lists(st.floats(0, 1e-4), min_size=1, max_size=50))
def test_a_child_with_free_slots_is_not_known_to_be_quick(seconds: list[float]) -> None:
    made = Prefetch(Lane.ASYNC, 10, list)
    for one in seconds:
        made.took(one, tasks=9, full=False)
    assert made.most() == 10
    made.took(1e-4, tasks=100)
    assert made.most() == AHEAD_SECONDS / 1e-4
    made.took(1.0, full=False)
    assert made.most() == 10


@pytest.mark.parametrize("lane", Lane)
def test_large_payloads_wait_in_small_numbers(lane: Lane) -> None:
    made = after((lane, 1), *[0.0] * 200)
    made.weighed(AHEAD_BYTES // 10)
    assert made.most() == 10
