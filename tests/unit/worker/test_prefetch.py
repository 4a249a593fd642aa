"""How many sync tasks a child may hold: few until they have shown to be short, one as soon as one was long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.worker.prefetch import AHEAD_SECONDS, MOST, Prefetch

times = st.floats(0, 1e5)


def after(*seconds: float) -> Prefetch:
    made = Prefetch(list)
    for one in seconds:
        made.ran(one)
    return made


@given(st.lists(times, max_size=200))
def test_there_is_always_room_for_one_and_never_for_more_than_the_most(ran: list[float]) -> None:
    assert 1 <= after(*ran).most() <= MOST


def test_nothing_is_taken_ahead_before_anything_has_run() -> None:
    assert after().most() == 1


@given(st.lists(times, max_size=50), st.floats(AHEAD_SECONDS, 1e5))
def test_one_long_run_ends_it_at_once(ran: list[float], long: float) -> None:
    assert after(*ran, long).most() == 1


@given(st.floats(0, AHEAD_SECONDS / MOST / 2), st.integers(0, 100))
def test_short_runs_earn_the_most_in_the_end(short: float, more: int) -> None:
    assert after(*[short] * (80 + more)).most() == MOST


@given(st.lists(times, max_size=50), times, times)
def test_a_longer_run_never_earns_more(ran: list[float], one: float, other: float) -> None:
    assert after(*ran, max(one, other)).most() <= after(*ran, min(one, other)).most()
