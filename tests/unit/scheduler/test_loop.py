from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Deposed
from services.scheduler.duties import duties
from services.scheduler.loop import MOST_BACKOFF, Loop, pause, run


@given(every=st.floats(0.001, 60), failures=st.integers(0, 10_000), more=st.booleans(), rand=st.floats(0, 0.999))
def test_a_pause_is_bounded_and_a_failing_tick_never_runs_hot(
    every: float,
    failures: int,
    more: bool,  # noqa: FBT001
    rand: float,
) -> None:
    found = pause(every, failures, more=more, rand=rand)
    assert 0 <= found <= max(MOST_BACKOFF, every * 1.2)
    if failures:
        assert found >= 0.1
    elif more:
        assert found == 0
    else:
        assert found >= every * 0.9


def test_a_duty_that_walks_over_what_is_dead_takes_its_share_of_the_time_at_most() -> None:
    ctx: Any = None
    bounded = Loop(name="t", tick=_nothing, every=1.0, share=0.1)
    assert [bounded.spacing(ctx, took) for took in (0.0, 0.05, 0.5)] == [1.0, 1.0, 5.0]
    assert Loop(name="t", tick=_nothing, every=0.0).spacing(ctx, 5.0) == 0.0  # it waits inside its tick


async def _nothing(_ctx: Any) -> int:
    return 0


def test_watching_is_fast_enough_for_its_own_gap_rule() -> None:
    for lease in (0.3, 1.5, 15.0, 180.0):
        watch = next(duty for duty in duties(lease) if duty.name == "watch")
        assert isinstance(watch.every, float)
        assert watch.every * 1.1 < lease / 3
    assert len({duty.name for duty in duties(15.0)}) == len(duties(15.0))


async def test_what_comes_later_in_a_term_leaves_it_its_first_seconds() -> None:
    did: list[object] = []

    async def sleep(seconds: float) -> None:
        did.append(seconds)

    async def tick(_ctx: Any) -> int:
        did.append("tick")
        raise Deposed("scheduler")

    ctx: Any = SimpleNamespace(nudges={}, clock=SimpleNamespace(sleep=sleep, monotonic=lambda: 0.0))
    with pytest.raises(Deposed):
        await run(Loop(name="t", tick=tick, every=1000.0, later=10.0), ctx)
    assert did == [10.0, "tick"]
    assert {duty.name for duty in duties(15.0) if duty.later} == {"strays", "floors_check"}
