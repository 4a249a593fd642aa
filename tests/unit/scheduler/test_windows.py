from __future__ import annotations

import random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.domain.ordering import URGENCY, Lane, PriorityType, list_key
from core.domain.windows import FRESH_SECONDS, HIGH_MOST, MOST_PER_SLOT, LaneFace, LaneOf, Wants, rooms, targets

HIGH, NORMAL, LOW = PriorityType.HIGH, PriorityType.NORMAL, PriorityType.LOW
QUEUES = ("p", "q", "r")
Situation = tuple[list[LaneFace], dict[LaneOf, int], set[str], dict[str, int]]


def face(number: int, queues: frozenset[str] = frozenset("q"), digest: str = "d") -> LaneFace:
    return LaneFace(lane=(UUID(int=number), Lane.SYNC), queues=queues, types=frozenset({"t"}), digest=digest)


def test_an_old_word_is_no_want() -> None:
    wants, lane = Wants(), (UUID(int=1), Lane.SYNC)
    assert wants.step(0, {lane: (4, 1)}) == {lane: 4}
    assert wants.step(FRESH_SECONDS, {lane: (4, 1)}) == {lane: 4}
    assert wants.step(FRESH_SECONDS + 0.1, {lane: (4, 1)}) == {lane: 0}
    assert wants.step(FRESH_SECONDS + 0.2, {lane: (4, 2)}) == {lane: 4}


def test_a_lane_shares_what_it_wants_among_queues_with_work() -> None:
    lanes = [face(1, frozenset(QUEUES))]
    want = {lanes[0].lane: 30}
    assert targets(lanes, want, {"p"}) == {("p", "d"): 40, ("q", "d"): 20, ("r", "d"): 20}
    assert targets(lanes, want, set()) == {("p", "d"): 40, ("q", "d"): 40, ("r", "d"): 40}
    assert targets(lanes, {lanes[0].lane: 0}, {"p"}) == {}


def test_what_is_less_urgent_is_not_in_the_way_of_what_is_more_so() -> None:
    lanes = [face(1)]
    room = rooms(lanes, {lanes[0].lane: 30}, {"q"}, {list_key("q", LOW, "d"): 40})
    assert [room.of("q", "d", priority) for priority in URGENCY] == [40, 40, 0]
    room.take("q", "d", HIGH)
    assert [room.of("q", "d", priority) for priority in URGENCY] == [39, 39, 0]


def test_a_list_of_high_tasks_is_bounded_whatever_workers_want() -> None:
    lanes = [face(1)]
    room = rooms(lanes, {lanes[0].lane: 100_000}, {"q"}, {})
    assert room.of("q", "d", HIGH) == HIGH_MOST
    assert room.of("q", "d", NORMAL) > HIGH_MOST


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    lanes = [
        face(number, frozenset(draw(st.sets(st.sampled_from(QUEUES), min_size=1))), draw(st.sampled_from("de")))
        for number in range(draw(st.integers(0, 5)))
    ]
    wants = {one.lane: draw(st.integers(0, 50)) for one in lanes}
    active = draw(st.sets(st.sampled_from(QUEUES)))
    lists = [list_key(queue, priority, digest) for queue in QUEUES for priority in URGENCY for digest in "de"]
    waiting = {key: draw(st.integers(0, 20)) for key in draw(st.lists(st.sampled_from(lists), max_size=4))}
    return lanes, wants, active, waiting


@given(situation=situations(), seed=st.integers())
def test_all_windows_together_are_bounded_and_a_hungry_lane_is_never_starved(situation: Situation, seed: int) -> None:
    lanes, wants, active, waiting = situation
    room = rooms(lanes, wants, active, waiting)
    places = [(queue, digest, priority) for queue in QUEUES for digest in "de" for priority in URGENCY] * 300
    random.Random(seed).shuffle(places)
    added = 0
    for place in places:
        if room.of(*place):
            room.take(*place)
            added += 1
    free = sum(wants.values())
    most = MOST_PER_SLOT * free + len(active)
    assert not added or sum(waiting.values()) + added <= most
    assert free or not added
    if free and not waiting:
        hungry = next(one for one in lanes if wants[one.lane])
        assert any(rooms(lanes, wants, active, {}).of(queue, hungry.digest, LOW) for queue in hungry.queues)
