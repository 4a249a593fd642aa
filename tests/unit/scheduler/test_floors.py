"""How far the order of starting is settled: no transaction that drew a place up to there is still under way."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.domain.cursors import BEHIND_SECONDS, PASS_SLICES, Cursor
from core.domain.feeding import Feeding
from core.domain.floors import SequenceLook, Settled
from core.domain.ordering import Lane, PriorityType
from core.domain.windows import LaneFace

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUTE = ("q", "t", PriorityType.NORMAL)


class Transactions:
    """PostgreSQL's numbers. One that draws a `seq` gets its own number at once, or with the next look at the latest."""

    def __init__(self) -> None:
        self.last, self.next = 0, 10
        self.open: dict[int, list[int]] = {}  # number -> what it drew
        self.unnumbered: list[int] = []

    def draw(self, *, numbered: bool) -> None:
        self.last += 1
        self.unnumbered.append(self.last)
        if numbered:
            self.number()

    def number(self) -> None:
        if self.unnumbered:
            self.open[self.next] = self.unnumbered
            self.unnumbered, self.next = [], self.next + 1

    def end(self, which: int) -> None:
        if self.open:
            del self.open[[*self.open][which % len(self.open)]]

    def look(self) -> SequenceLook:
        return SequenceLook(self.last, min(self.open, default=self.next), self.next)

    def under_way(self) -> list[int]:
        return [*self.unnumbered, *(seq for drawn in self.open.values() for seq in drawn)]


DEEDS = ["draw", "draw late", "end", "end", "look"]
steps = st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(0, 9)), max_size=60)


@given(steps)
def test_what_is_settled_is_drawn_by_nobody_who_is_under_way(history: Sequence[tuple[str, int]]) -> None:
    world, settled = Transactions(), Settled()
    for deed, which in history:
        if deed == "end":
            world.end(which)
        elif deed == "look":
            before = settled.seq
            seen = world.look()
            world.number()
            assert settled.step(seen) >= before
        else:
            world.draw(numbered=deed == "draw")
        assert all(seq > settled.seq for seq in world.under_way())


def test_three_looks_settle_what_the_first_one_saw() -> None:
    settled = Settled()
    assert [settled.step(SequenceLook(last, 5, 5)) for last in (7, 8, 9, 10, 11, 12)] == [0, 0, 7, 7, 9, 9]


def test_whoever_was_under_way_at_the_second_look_is_waited_for() -> None:
    settled = Settled()
    looks = [SequenceLook(7, 5, 5), SequenceLook(7, 5, 6), SequenceLook(9, 5, 7), SequenceLook(9, 6, 7)]
    assert [settled.step(look) for look in looks] == [0, 0, 0, 7]


def test_a_sequence_that_was_set_back_is_settled_anew() -> None:
    settled = Settled()
    for last in (7, 8, 9):
        settled.step(SequenceLook(last, 5, 5, events=last))
    assert (settled.seq, settled.events) == (7, 7)
    assert [settled.step(SequenceLook(3, 5, 5)) for _ in range(3)] == [0, 0, 3]


def test_a_cursor_begins_at_its_floor_and_looks_behind_no_further() -> None:
    cursor = Cursor(100.0, floor=50)
    assert cursor.seq == 50
    assert cursor.behind(200.0) is None  # nothing was passed yet
    cursor.sent(100.0, [60], 60)
    assert cursor.behind(200.0) == 50
    cursor.stand(55)
    cursor.reset(200.0)
    assert cursor.seq == 55


def test_a_cursor_that_starts_over_does_so_at_its_floor() -> None:
    cursor, now = Cursor(100.0, floor=50), 100.0
    cursor.sent(now, [60], 60)
    for _ in range(PASS_SLICES):
        now += BEHIND_SECONDS
        assert cursor.behind(now) == 50
        cursor.found(now, [], limit=10, hungry=False)
    assert (cursor.seq, cursor.hot) == (50, True)


def test_a_floor_that_rises_takes_the_cursor_with_it_and_one_that_falls_does_not() -> None:
    cursor = Cursor(100.0)
    cursor.stand(50)
    assert cursor.seq == 50
    cursor.stand(20)
    assert cursor.seq == 50
    assert cursor.behind(200.0) == 20


def test_floors_count_for_routes_there_are_and_for_those_that_come() -> None:
    feeding = Feeding()
    lane = LaneFace(lane=(UUID(int=1), Lane.SYNC), queues=frozenset("q"), types=frozenset("t"), digest="d")
    feeding.stand({ROUTE: 50})
    feeding.lay(100.0, [lane], frozenset())
    assert feeding.cursors[ROUTE].seq == 50
    feeding.stand({ROUTE: 60, ("other", "t", PriorityType.LOW): 9})
    assert feeding.cursors[ROUTE].seq == 60
    feeding.cursors[ROUTE].sent(100.0, [70], 70)
    feeding.stand({})
    assert feeding.cursors[ROUTE].behind(200.0) == 0
    assert feeding.cursors["q", "t", PriorityType.HIGH].seq == 0
