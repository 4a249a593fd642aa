from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import SystemClock
from core.domain.limits import Rate, take
from core.limits import MOST_KEYS, Buckets


def test_a_whole_allowance_at_once_and_then_at_its_pace() -> None:
    rate = Rate(limit=6, period=60.0)
    tat = 0.0
    for left in (5, 4, 3, 2, 1, 0):
        verdict = take(rate, tat, 0.0, cost=1)
        tat = verdict.tat
        assert (verdict.granted, verdict.remaining, verdict.retry_after) == (1, left, 0.0)
        assert verdict.reset == pytest.approx(60.0 - left * 10.0)
    refused = take(rate, tat, 0.0, cost=1)
    assert (refused.granted, refused.remaining) == (0, 0)
    assert refused.retry_after == pytest.approx(10.0)
    assert take(rate, tat, 9.9, cost=1).granted == 0
    assert take(rate, tat, 10.0, cost=1).granted == 1


def test_what_costs_more_than_all_is_never_granted() -> None:
    refused = take(Rate(10), 0.0, 0.0, cost=11)
    assert (refused.granted, refused.remaining) == (0, 10)


def test_more_is_taken_in_advance_when_there_is_more() -> None:
    assert take(Rate(100), 0.0, 0.0, cost=1, want=30).granted == 30
    assert take(Rate(100), 48.0, 0.0, cost=1, want=30).granted == 20


def test_a_time_from_far_ahead_shuts_nobody_out_for_longer_than_a_period() -> None:
    assert take(Rate(10), 1e9, 0.0, cost=1).retry_after == pytest.approx(6.0)


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=60),
)
def test_no_more_than_twice_the_allowance_in_a_period_and_refusals_keep_their_word(
    limit: int, turns: list[tuple[float, int, int]]
) -> None:
    rate, tat, now, granted = Rate(limit, 60.0), 0.0, 0.0, 0
    for pause, cost, want in turns:
        now += pause
        verdict = take(rate, tat, now, cost=cost, want=want)
        granted += verdict.granted
        assert granted <= limit + now / rate.interval + 1
        if not verdict.granted and cost <= limit:
            assert take(rate, verdict.tat, now + verdict.retry_after, cost=cost).granted >= cost
        tat = verdict.tat


class _Clock(SystemClock):
    at = 0.0

    def monotonic(self) -> float:
        return self.at


def test_a_bucket_for_every_stranger_does_not_fill_the_memory() -> None:
    clock = _Clock()
    buckets = Buckets(clock)
    for number in range(MOST_KEYS + 10):
        clock.at += 0.001
        buckets.take(str(number), Rate(2), 2)
    assert len(buckets._tats) <= MOST_KEYS
    # Whoever came last is still known.
    assert buckets.take(str(MOST_KEYS + 9), Rate(2), 1).granted == 0
