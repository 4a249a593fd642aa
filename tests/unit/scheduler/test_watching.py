from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from core.domain.watching import UNABLE_SECONDS, Capability, DeathWatch, OverdueWatch

W = UUID(int=1)
LEASE = 15.0


def test_a_beat_that_stands_still_for_a_lease_is_death() -> None:
    watch = DeathWatch(LEASE)
    assert [bool(watch.step(at, at, {W: 7})) for at in range(17)] == [False] * 15 + [True] * 2


def test_the_beat_that_was_seen_is_what_must_not_have_changed() -> None:
    watch = DeathWatch(LEASE)
    for at in range(15):
        assert watch.step(at, at, {W: 7}) == []
    assert watch.step(15, 15, {W: 7}) == [(W, 7)]


def test_a_failed_scan_gives_everybody_a_whole_lease() -> None:
    watch = DeathWatch(LEASE)
    for at in range(14):
        watch.step(at, at, {W: 7})
    watch.failed()
    assert [bool(watch.step(at, at, {W: 7})) for at in range(14, 31)] == [False] * 15 + [True] * 2


def test_a_scan_that_took_long_is_a_gap() -> None:
    watch = DeathWatch(LEASE)
    for at in range(14):
        watch.step(at, at, {W: 7})
    assert watch.step(14, 30, {W: 7}) == []
    assert watch.step(31, 31, {W: 7}) == []


@given(
    steps=st.lists(
        st.tuples(st.floats(0.01, 30.0), st.floats(0.0, 8.0), st.booleans(), st.booleans()), min_size=1, max_size=60
    )
)
def test_whoever_beats_within_a_lease_never_dies(steps: list[tuple[float, float, bool, bool]]) -> None:
    """Scans of any length at any time, some failing; the worker's beat commits at least once a lease."""
    watch, now, beat, beaten = DeathWatch(LEASE), 0.0, 0, 0.0
    for pause, length, fails, beats in steps:
        now += pause
        if beats or now - beaten >= LEASE * 0.99:  # the beat of a living worker is never older
            beat, beaten = beat + 1, now
        if fails:
            watch.failed()
            continue
        assert watch.step(now, now + length, {W: beat}) == []
        now += length
        if now - beaten >= LEASE * 0.99:
            beat, beaten = beat + 1, now


@given(scans=st.lists(st.floats(0.01, LEASE / 3 - 0.01), min_size=1, max_size=100))
def test_whoever_is_dead_is_found_in_a_lease_and_one_scan(scans: list[float]) -> None:
    watch, now, found = DeathWatch(LEASE), 0.0, None
    watch.step(now, now, {W: 1})
    for pause in scans:
        now += pause
        if watch.step(now, now, {W: 1}):
            found = now
            break
    assert (found is not None) == (now >= LEASE)
    if found is not None:
        assert found < LEASE + LEASE / 3


def test_an_overdue_attempt_is_over_after_its_limit_on_our_own_clock() -> None:
    watch, task = OverdueWatch(), uuid4()
    assert watch.step(0, [(task, 1, 10.0)]) == set()
    assert watch.step(9, [(task, 1, 10.0)]) == set()
    assert watch.step(10, [(task, 2, 10.0)]) == set(), "another attempt has its own limit"
    assert watch.step(20, [(task, 2, 10.0)]) == {(task, 2)}
    assert watch.step(21, []) == set()
    assert watch.step(40, [(task, 2, 10.0)]) == set(), "it was seen to be gone meanwhile"


def test_a_type_counts_as_known_for_a_minute_and_strangers_only_after_one() -> None:
    capable = Capability()
    capable.step(0, ["a"])
    assert not capable.settled(UNABLE_SECONDS - 1)
    capable.step(30, ["b"])
    assert capable.recent() == ["a", "b"]
    capable.step(UNABLE_SECONDS, ["b"])
    assert capable.recent() == ["b"]
    assert capable.settled(UNABLE_SECONDS)
