"""The pure middle: the table of moves, retry rules, ids, gates, order."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.gates import narrowest, room
from core.domain.ids import uuid7
from core.domain.lifecycle import ENDED, RUNNING, TABLE, WAITING, Cause, TaskStatus, edges, target
from core.domain.ordering import URGENCY, PriorityType, digest, list_key
from core.domain.retry import Failure, RetryPolicy, backoff, decide
from core.lifecycle_page import WHY

BORN = {TaskStatus.BLOCKED, TaskStatus.PENDING, TaskStatus.QUEUED}
LIVE = WAITING | RUNNING
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10_000),
    initial=st.floats(0, 1e6),
    factor=st.floats(1, 1e3),
    cap=st.floats(0, 1e6),
)
chances = st.floats(0, 1, exclude_max=True)
counts = st.integers(0, 100_000)


def after(statuses: set[TaskStatus], *, but: frozenset[Cause] = frozenset()) -> set[TaskStatus]:
    """Everything that can be reached from `statuses`, them included."""
    found = set(statuses)
    while True:
        more = {
            end
            for cause, moves in TABLE.items()
            if cause not in but
            for source, targets in moves.items()
            if source in found
            for end in targets
        }
        if more <= found:
            return found
        found |= more


def test_every_status_waits_or_runs_or_has_ended() -> None:
    assert set(TaskStatus) == WAITING | RUNNING | ENDED
    assert len(TaskStatus) == len(WAITING) + len(RUNNING) + len(ENDED)


def test_every_cause_is_in_the_table_and_explained() -> None:
    assert set(TABLE) == set(Cause) == set(WHY)
    assert all(TABLE.values())


@pytest.mark.parametrize("status", sorted(LIVE))
def test_a_live_task_can_move_on(status: TaskStatus) -> None:
    assert [cause for cause, moves in TABLE.items() if status in moves]


@pytest.mark.parametrize("status", sorted(ENDED))
def test_only_a_redrive_leaves_an_end_and_never_success(status: TaskStatus) -> None:
    leaving = {cause for cause, moves in TABLE.items() if status in moves}
    assert leaving == (set() if status is TaskStatus.COMPLETED else {Cause.REDRIVE})


def test_every_status_can_be_reached() -> None:
    assert after(BORN) == set(TaskStatus)


@pytest.mark.parametrize("status", sorted(TaskStatus))
def test_from_everywhere_an_end_can_be_reached(status: TaskStatus) -> None:
    assert after({status}, but=frozenset({Cause.REDRIVE})) & ENDED


@pytest.mark.parametrize("status", sorted(LIVE))
def test_a_live_task_can_always_be_cancelled_for_good(status: TaskStatus) -> None:
    assert target(Cause.FORCE_CANCEL, status, gated=False) is TaskStatus.CANCELLED


def test_only_a_claim_makes_a_task_run() -> None:
    starting = {cause for cause, moves in TABLE.items() for source in moves if source in WAITING
                for end in moves[source] if end in RUNNING}  # fmt: skip
    assert starting == {Cause.CLAIM}


def test_nothing_but_the_gate_queues_a_gated_task() -> None:
    queueing = {cause for cause, moves in TABLE.items() for end in moves.values() if end.gated is TaskStatus.QUEUED}
    assert queueing == {Cause.PROMOTE}


def test_a_task_asked_to_stop_never_runs_on() -> None:
    ends = {end for moves in TABLE.values() for end in moves.get(TaskStatus.CANCELLING, ())}
    assert ends == {TaskStatus.COMPLETED, TaskStatus.CANCELLED}


@given(st.sampled_from(Cause), st.sampled_from(TaskStatus), st.booleans())
def test_the_lists_for_sql_say_what_the_table_says(cause: Cause, source: TaskStatus, gated: bool) -> None:  # noqa: FBT001
    way = edges(cause)
    assert len(way.sources) == len(set(way.sources)) == len(way.free) == len(way.gated) == len(TABLE[cause])
    told = dict(zip(way.sources, way.gated if gated else way.free, strict=True)).get(source.value)
    assert told == target(cause, source, gated=gated)


@given(policies, counts, chances)
def test_a_wait_is_never_negative_nor_beyond_the_cap(policy: RetryPolicy, failures: int, rand: float) -> None:
    assert 0 <= backoff(policy, failures, rand=rand) <= policy.cap


@given(policies, st.integers(1, 1000), chances)
def test_waits_grow(policy: RetryPolicy, failures: int, rand: float) -> None:
    assert backoff(policy, failures, rand=rand) <= backoff(policy, failures + 1, rand=rand)


@given(policies, st.sampled_from(Failure), counts, chances, st.none() | st.floats(-1e6, 1e6))
def test_what_follows_a_failure(
    policy: RetryPolicy, failure: Failure, failures: int, rand: float, later: float | None
) -> None:
    decision = decide(policy, failure, failures=failures, rand=rand, later=later)
    assert decision.delay >= 0
    assert decision.charge == (0 if failure is Failure.LATER else 1)
    if failure is Failure.LATER:
        assert decision.again
    if failure is Failure.FATAL:
        assert not decision.again
    if failure is Failure.RETRYABLE:
        assert decision.again == (failures + 1 < policy.max_attempts)


@given(policies, chances)
def test_a_task_that_always_fails_runs_max_attempts_times(policy: RetryPolicy, rand: float) -> None:
    short = RetryPolicy(max_attempts=policy.max_attempts % 50 + 1, initial=policy.initial, cap=policy.cap)
    failures = 0
    while decide(short, Failure.RETRYABLE, failures=failures, rand=rand).again:
        failures += 1
    assert failures + 1 == short.max_attempts


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=16))
def test_ids_are_uuids_of_version_7_that_hold_their_time(milliseconds: int, entropy: bytes) -> None:
    made = uuid7(milliseconds, entropy)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == milliseconds


@given(st.integers(0, 2**48 - 2), st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_ids_of_a_later_millisecond_sort_later(milliseconds: int, one: bytes, other: bytes) -> None:
    assert uuid7(milliseconds, one) < uuid7(milliseconds + 1, other)


@given(st.lists(st.binary(min_size=10, max_size=10), unique_by=lambda entropy: (entropy[0] % 16, entropy[1:])))
def test_ids_keep_at_least_70_bits_of_chance(entropies: list[bytes]) -> None:
    kept = {(int.from_bytes(e, "big") & ~(0xF << 76) & ~(0x3 << 62)) for e in entropies}
    assert len({uuid7(0, entropy) for entropy in entropies}) == len(kept)


@given(st.integers(0, 1000), st.integers(0, 2000))
def test_room_under_a_cap(cap: int, active: int) -> None:
    free = room(cap, active)
    assert (free is None) == (cap == 0)
    if free is not None:
        assert free >= 0
        assert active + free <= max(cap, active)


@given(st.lists(st.none() | st.integers(0, 1000)), st.integers(0, 1000))
def test_the_narrowest_room_counts(rooms: list[int | None], most: int) -> None:
    free = narrowest(*rooms, most=most)
    assert 0 <= free <= most
    assert all(free <= value for value in rooms if value is not None)
    assert free in {most, *rooms}


def test_urgency_has_every_priority_once_high_first() -> None:
    assert sorted(URGENCY) == sorted(PriorityType)
    assert URGENCY[0] is PriorityType.HIGH
    assert URGENCY[-1] is PriorityType.LOW


@given(st.lists(st.text(max_size=20), max_size=8), st.randoms())
def test_a_digest_knows_the_set_and_not_the_order(types: list[str], chance: object) -> None:
    shuffled = [*types, *types]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest(types) == digest(shuffled)
    assert digest(types) != digest([*types, "one more".rjust(30)])


@given(st.sampled_from(PriorityType), st.text(max_size=20), st.text(max_size=20))
def test_lists_of_two_queues_are_two(priority: PriorityType, one: str, other: str) -> None:
    keys = {list_key(name, priority, digest(["a"])) for name in (one, other)}
    assert len(keys) == len({one, other})


def test_an_id_is_a_plain_uuid() -> None:
    assert isinstance(uuid7(1, bytes(10)), UUID)
