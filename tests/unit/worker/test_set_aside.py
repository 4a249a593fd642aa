"""Endings that wait for their next try: none is lost, and each is tried less and less often."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason
from services.worker import set_aside
from services.worker.set_aside import MOST_ROWS, SetAside


def ending(number: int, size: int = 0) -> Ending:
    return Ending(UUID(int=number), 1, UUID(int=0), Cause.SUCCEED, Reason.RETURNED, "x" * size)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def rand(self) -> float:
        return 0.5


STEPS = st.lists(st.tuples(st.sampled_from(["put", "blame", "take", "settle"]), st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_what_is_put_is_taken_again_until_it_is_settled(steps: list[tuple[str, int]]) -> None:
    clock, real = Clock(), set_aside.clock
    set_aside.clock = clock  # type: ignore[assignment]
    try:
        aside, known = SetAside(), set[int]()
        for step, number in steps:
            if step == "take":
                clock.now += 3.0  # more than the longest pause: all are due
                taken = aside.take()
                assert {one.id.int for one in taken} == known
                assert aside.take() == []  # they are being tried
                aside.put(taken)
            elif step == "settle":
                aside.settle([ending(number)])
                known.discard(number)
            else:
                new = aside.put([ending(number)], to_blame=step == "blame")
                assert bool(new) == (number not in known)
                known.add(number)
            assert len(aside) == len(known)
            assert (aside.seconds_to_next is None) <= (not known)
    finally:
        set_aside.clock = real


def test_a_batch_is_bounded_in_rows_and_in_bytes() -> None:
    aside = SetAside()
    aside.put([ending(number) for number in range(MOST_ROWS + 5)])
    aside.put([ending(-number % 2**127, 5 * 1024 * 1024) for number in range(1, 4)])
    sizes = []
    while len(aside):
        if batch := aside.take():
            sizes.append(len(batch))
            assert sum(len(one.result or "") for one in batch) <= 15 * 1024 * 1024
            aside.settle(batch)
    assert sum(sizes) == MOST_ROWS + 8
    assert max(sizes) <= MOST_ROWS
