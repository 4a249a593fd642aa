"""The feeder's mind against a model: any arrivals, any order of commits, lost hints, rewinds; nothing is left out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.credits import Ledger
from core.domain.cursors import AGAIN_SECONDS, BEHIND_SECONDS, STALE_SECONDS, Cursor
from core.domain.feeding import Ask, Feeding
from core.domain.ordering import URGENCY, Lane, PriorityType, list_key
from core.domain.windows import LaneFace

if TYPE_CHECKING:
    from collections.abc import Iterator

HIGH, NORMAL, LOW = PriorityType.HIGH, PriorityType.NORMAL, PriorityType.LOW
LANE = (UUID(int=1), Lane.SYNC)


def face(digest: str = "d", types: frozenset[str] = frozenset("tu"), number: int = 1) -> LaneFace:
    return LaneFace(lane=(UUID(int=number), Lane.SYNC), queues=frozenset("q"), types=types, digest=digest)


class World:
    """A table of QUEUED rows, lists, and a feeder that is driven by hand."""

    def __init__(self, *faces: LaneFace) -> None:
        self.feeding, self.now = Feeding(), 100.0
        self.rows: dict[int, tuple[str, PriorityType, UUID]] = {}
        self.lists: dict[str, list[UUID]] = {}
        self.faces = faces or (face(),)
        self.feeding.lay(self.now, self.faces, frozenset())

    def queued(self, seq: int, kind: str = "t", priority: PriorityType = NORMAL) -> UUID:
        self.rows[seq] = (kind, priority, uuid4())
        return self.rows[seq][2]

    def read(self, asks: list[Ask]) -> dict[tuple[str, str, PriorityType], list[tuple[int, UUID]]]:
        return {
            ask.route: [
                (seq, row[2]) for seq, row in sorted(self.rows.items()) if seq > ask.seq and row[:2] == ask.route[1:]
            ][: ask.limit]
            for ask in asks
        }

    def round(self, want: int = 10, *, arrives: bool = True, ceiling: int | None = None, behind: int = 1000) -> int:
        feeding = self.feeding
        waiting = {key: len(ids) for key, ids in self.lists.items()}
        feeding.see({one.lane: want for one in self.faces}, waiting)
        for route, cursor in feeding.cursors.items():
            place = cursor.behind(self.now)
            if place is not None:
                found = [seq for seq, _ in self.read([Ask(route, place, behind)])[route]]
                cursor.found(self.now, found, limit=behind, hungry=feeding.hungry(route))
        room = feeding.rooms()
        asks = feeding.asks(room, None)
        taken = feeding.take(self.now, asks, self.read(asks), room, {} if ceiling is None else {"q": ceiling})
        if arrives:
            for key, ids in taken.hints.items():
                self.lists.setdefault(key, []).extend(UUID(bytes=one) for one in ids)
            feeding.sent(self.now, taken)
        return taken.number

    def consume(self, most: int = 10**9) -> list[UUID]:
        """Workers take references, HIGH first, and claim what is QUEUED still."""
        claimed: list[UUID] = []
        for priority in URGENCY:
            for key, ids in self.lists.items():
                if key.startswith(f"tf:r:{priority.value}:"):
                    some, ids[:] = ids[: most - len(claimed)], ids[most - len(claimed) :]
                    for task in some:
                        for seq, row in list(self.rows.items()):
                            if row[2] == task:
                                del self.rows[seq]
                                claimed.append(task)
        return claimed


def test_priority_then_seq_across_types() -> None:
    world = World()
    order = [world.queued(seq, kind, priority) for seq, kind, priority in [
        (5, "t", HIGH), (9, "u", HIGH), (1, "u", NORMAL), (2, "t", NORMAL), (3, "u", NORMAL), (4, "t", LOW),
    ]]  # fmt: skip
    world.round(want=100)
    assert world.consume() == order


def test_with_little_room_the_order_holds_all_the_same() -> None:
    world = World()
    order = [world.queued(seq, "tu"[seq % 7 == 0]) for seq in range(1, 101)]
    seen: list[UUID] = []
    for _ in range(200):
        world.round(want=3)
        seen += world.consume(2)
    assert seen == order


def test_what_did_not_arrive_is_read_again() -> None:
    world = World()
    task = world.queued(1)
    assert world.round(arrives=False) == 1
    assert world.round() == 1
    assert world.consume() == [task]


def test_a_type_goes_where_its_digest_is_and_prefers_the_emptier_list() -> None:
    world = World(face("d", frozenset("t")), face("e", frozenset("tu"), 2))
    for seq in range(1, 11):
        world.queued(seq, "t")
    world.queued(11, "u")
    world.round(want=8)
    d, e = (len(world.lists[list_key("q", NORMAL, digest)]) for digest in "de")
    assert (d + e, d) == (11, 5) or (d + e, e) == (11, 5) or abs(d - e) <= 1
    assert world.rows[11][2] in world.lists[list_key("q", NORMAL, "e")]


def test_a_digest_that_nobody_reads_any_more_gives_its_rows_back_at_once() -> None:
    world = World(face("d", frozenset("t")), face("e", frozenset("tu"), 2))
    tasks = {world.queued(seq, "t") for seq in range(1, 5)}
    world.round(want=8)
    world.lists.clear()
    world.faces = (face("e", frozenset("tu"), 2),)
    world.feeding.lay(world.now, world.faces, frozenset())
    world.round(want=8)
    assert set(world.consume()) == tasks


def test_rows_above_the_ceiling_are_left_to_those_who_wrote_them() -> None:
    world = World()
    old, _ = world.queued(1), world.queued(2)
    assert world.round(ceiling=1) == 1
    assert world.consume() == [old]
    assert world.round(ceiling=1) == 0
    assert world.round(ceiling=2) == 1


def test_a_paused_queue_has_no_cursors_and_a_resumed_one_starts_over() -> None:
    world = World()
    world.queued(5)
    world.round()
    world.feeding.lay(world.now, world.faces, frozenset("q"))
    assert not world.feeding.cursors
    world.queued(1)
    world.feeding.lay(world.now, world.faces, frozenset())
    world.round()
    assert len(world.consume()) == 2


def test_a_row_that_commits_late_is_found_within_one_look_behind() -> None:
    world = World()
    world.queued(50)
    world.round()
    late = world.queued(3)
    assert world.round() == 0
    world.now += BEHIND_SECONDS
    assert world.round() == 1
    assert late in world.consume()


def test_a_hint_that_waits_in_its_list_is_not_repeated_and_a_lost_one_is() -> None:
    world = World()
    for seq in range(1, 6):
        world.queued(seq)
    assert world.round(want=5) == 5
    for _ in range(10):
        world.now += BEHIND_SECONDS
        assert world.round(want=5) == 0
    world.lists.clear()
    world.now += BEHIND_SECONDS
    assert world.round(want=5) == 5


def test_a_lost_hint_is_repeated_within_a_minute_though_the_lanes_are_never_hungry() -> None:
    world = World()
    for seq in range(1, 301):
        world.queued(seq)
    world.round(want=10)
    [waiting] = world.lists.values()
    lost, began = waiting.pop(0), world.now
    while lost not in waiting:
        world.now += 1
        world.consume(1)
        world.round(want=10)
        assert world.now - began <= STALE_SECONDS + BEHIND_SECONDS
    assert world.now - began >= STALE_SECONDS


def test_a_look_behind_goes_on_in_slices() -> None:
    world = World()
    for seq in range(10, 40):
        world.queued(seq)
    world.round(want=100)
    late = world.queued(5)
    for seq in range(11, 40):
        assert seq in world.rows
    world.now += BEHIND_SECONDS
    for _ in range(3):
        world.round(want=100, behind=4)
    assert late in world.consume()


def test_what_was_claimed_is_forgotten() -> None:
    world = World()
    for seq in range(1, 1001):
        world.queued(seq)
        world.round(want=50)
        world.consume()
    world.now += BEHIND_SECONDS
    world.round()
    world.now += AGAIN_SECONDS
    world.round()
    assert len(world.feeding.cursors["q", "t", NORMAL].hinted) == 0


def test_a_pass_from_the_beginning_is_not_slowed_by_what_was_hinted_already() -> None:
    world = World()
    for seq in range(1, 41):
        world.queued(seq)
    world.round(want=30)
    cursor = world.feeding.cursors["q", "t", NORMAL]
    cursor.seq = 0
    next_one = world.queued(41)
    world.consume(40)
    assert len(world.rows) == 1
    world.round(want=1)
    assert world.consume() == [next_one]


DEEDS = ("queue", "late", "commit", "round", "fail", "lose", "claim", "time", "poll")


def happens(world: World, deed: str, late: list[int], seqs: Iterator[int], data: st.DataObject) -> None:
    match deed:
        case "queue":
            world.queued(next(seqs), data.draw(st.sampled_from("tu")), data.draw(st.sampled_from(URGENCY)))
        case "late":
            late.append(next(seqs))
        case "commit" if late:
            world.queued(late.pop(data.draw(st.integers(0, len(late) - 1))))
        case "round":
            world.round(want=data.draw(st.integers(0, 5)))
        case "fail":
            world.round(arrives=False)
        case "lose":
            world.lists.clear()
        case "claim":
            world.consume(data.draw(st.integers(1, 5)))
        case "time":
            world.now += data.draw(st.floats(0.1, 12.0))
        case "poll" if world.rows:  # claimed without a reference
            del world.rows[data.draw(st.sampled_from(sorted(world.rows)))]


@settings(max_examples=60)
@given(data=st.data(), deeds=st.lists(st.sampled_from(DEEDS), max_size=40))
def test_every_row_is_claimed_in_the_end_whatever_happens(data: st.DataObject, deeds: list[str]) -> None:
    """Rows commit in any order, hints get lost, sends fail, workers come and go; then nothing happens for a while."""
    world, late, seqs = World(), list[int](), itertools.count(1)
    for deed in deeds:
        happens(world, deed, late, seqs, data)
    for one in late:
        world.queued(one)
    for _ in range(60):
        world.now += 0.5
        world.round(want=5)
        world.consume()
    assert world.rows == {}


def test_credits_are_given_to_dry_queues_and_taken_back_from_busy_ones() -> None:
    world, ledger = World(), Ledger()
    world.round(want=6)
    room = world.feeding.rooms()
    offers = ledger.offers(world.feeding, room, None)
    assert (offers["q"].routes, offers["q"].low) == ({"t": "d", "u": "d"}, {"d": 8})
    assert ledger.out == {"q"}
    for seq in range(1, 100):
        world.queued(seq)
    world.round(want=6)
    assert ledger.offers(world.feeding, world.feeding.rooms(), None)["q"].routes == {}
    assert ledger.out == set()
    assert ledger.offers(world.feeding, world.feeding.rooms(), None) == {}


def test_a_queue_that_lacked_credit_is_read_at_once_and_its_offer_is_still_taken_back() -> None:
    world, ledger = World(), Ledger()
    ledger.sample(0.0, 7)
    world.round()
    ledger.offers(world.feeding, world.feeding.rooms(), None)
    assert ledger.ceilings() == {"q": 7}
    ledger.short({"q"})
    assert ledger.ceilings() == {}
    ledger.refuse(["q"])
    assert ledger.offers(world.feeding, world.feeding.rooms(), None)["q"].routes == {}


def test_the_ceiling_is_what_was_given_out_a_second_ago() -> None:
    ledger = Ledger()
    ledger.out.add("q")
    for at, seq in [(0.0, 10), (0.5, 20), (1.0, 30), (1.6, 40)]:
        ledger.sample(at, seq)
    assert ledger.ceilings() == {"q": 20}


def test_a_cursor_looks_when_it_is_told_to() -> None:
    cursor = Cursor(100.0)
    cursor.sent(100.0, [5], 5)
    assert cursor.behind(101.0) is None
    cursor.look()
    assert cursor.behind(101.0) == 0
