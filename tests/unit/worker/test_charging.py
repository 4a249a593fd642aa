"""What charges what: the table of design.md §4, then its rules for everything that can be thrown at it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.lifecycle import TABLE, Cause, TaskStatus
from core.domain.retry import RetryPolicy
from core.domain.task import MAX_CRASHES, Ending, Reason
from services.worker.charging import MOST_RESULT, ErrorInfo, Kind, Outcome, charge, rejected
from tests.unit.worker.made import TASK

if TYPE_CHECKING:
    from core.domain.task import Claimed

POLICY = RetryPolicy(max_attempts=3, initial=1.0, factor=2.0, cap=300.0)
UNCHARGED = {Kind.SUSPECT, Kind.RELEASED, Kind.FORGOTTEN, Kind.LATER, Kind.RETURNED, Kind.CANCELLED}

TABLE_OF_CHARGES = [
    # outcome, retry_count, crash_count -> cause, reason, failures, crashes, isolation
    (Outcome(kind=Kind.RETURNED, result=b"1"), 0, 0, Cause.SUCCEED, Reason.RETURNED, 0, 0, 0),
    (Outcome(kind=Kind.RAISED), 0, 0, Cause.RETRY, Reason.ERROR, 1, 0, 0),
    (Outcome(kind=Kind.RAISED), 2, 0, Cause.GIVE_UP, Reason.ERROR, 1, 0, 0),
    (Outcome(kind=Kind.RAISED, fatal=True), 0, 0, Cause.GIVE_UP, Reason.ERROR, 1, 0, 0),
    (Outcome(kind=Kind.TIMED_OUT), 0, 0, Cause.RETRY, Reason.TIMEOUT, 1, 0, 0),
    (Outcome(kind=Kind.TIMED_OUT), 2, 0, Cause.GIVE_UP, Reason.TIMEOUT, 1, 0, 0),
    (Outcome(kind=Kind.LATER, later=60.0), 2, 0, Cause.RETRY, Reason.RETRY_LATER, 0, 0, 0),
    (Outcome(kind=Kind.REJECTED), 0, 0, Cause.GIVE_UP, Reason.RESULT_REJECTED, 1, 0, 0),
    (Outcome(kind=Kind.CANCELLED), 0, 0, Cause.STOP, Reason.CANCELLED, 0, 0, 0),
    (Outcome(kind=Kind.CRASHED), 0, 0, Cause.RETRY, Reason.CRASH, 0, 1, 1),
    (Outcome(kind=Kind.CRASHED), 9, MAX_CRASHES - 1, Cause.QUARANTINE, Reason.CRASH, 0, 1, 0),
    (Outcome(kind=Kind.OUT_OF_MEMORY), 0, 0, Cause.RETRY, Reason.OUT_OF_MEMORY, 0, 1, 1),
    (Outcome(kind=Kind.SUSPECT, company=51), 2, 1, Cause.RELEASE, Reason.SUSPECT, 0, 0, 25),
    (Outcome(kind=Kind.SUSPECT, company=2), 2, 1, Cause.RELEASE, Reason.SUSPECT, 0, 0, 1),
    (Outcome(kind=Kind.RELEASED), 2, 1, Cause.RELEASE, Reason.RELEASED, 0, 0, 0),
    (Outcome(kind=Kind.FORGOTTEN), 2, 1, Cause.RELEASE, Reason.FORGOTTEN, 0, 0, 0),
]


@pytest.mark.parametrize(
    ("outcome", "failures_before", "crashes_before", "cause", "reason", "failures", "crashes", "isolation"),
    TABLE_OF_CHARGES,
)
def test_what_charges_what(  # noqa: PLR0917 - a table has columns
    outcome: Outcome,
    failures_before: int,
    crashes_before: int,
    cause: Cause,
    reason: Reason,
    failures: int,
    crashes: int,
    isolation: int,
) -> None:
    task = TASK._replace(retry_count=failures_before, crash_count=crashes_before)
    ending = charge(task, POLICY, outcome, rand=0.5)
    assert (ending.cause, ending.reason, ending.failures, ending.crashes, ending.isolation) == (
        cause,
        reason,
        failures,
        crashes,
        isolation,
    )


outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(Kind),
    result=st.none() | st.binary(max_size=20),
    error=st.none() | st.builds(ErrorInfo, type=st.text(), message=st.text(), traceback=st.text()),
    fatal=st.booleans(),
    later=st.none() | st.floats(min_value=-1e9, max_value=1e9),
    logs=st.text(),
    company=st.integers(1, 1000),
)
tasks = st.builds(
    lambda retries, crashes, isolation: TASK._replace(retry_count=retries, crash_count=crashes, isolation=isolation),
    st.integers(0, 10),
    st.integers(0, 5),
    st.integers(0, 100),
)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10),
    initial=st.floats(0, 10),
    factor=st.floats(1, 10),
    cap=st.floats(0, 1e3),
)
rands = st.floats(0, 1, exclude_max=True)


@given(tasks, policies, outcomes, rands)
def test_every_outcome_becomes_a_legal_ending_of_the_same_attempt(
    task: Claimed, policy: RetryPolicy, outcome: Outcome, rand: float
) -> None:
    ending = charge(task, policy, outcome, rand=rand)
    assert (ending.id, ending.attempt, ending.claim) == (task.id, task.attempt, task.claim)
    assert TaskStatus.CANCELLING in TABLE[ending.cause]
    assert ending.delay >= 0
    assert ending.failures + ending.crashes <= 1
    assert (ending.result is not None) == (ending.cause is Cause.SUCCEED)
    assert ending.error is None or set(json.loads(ending.error)) == {"type", "message", "traceback"}


@given(tasks, policies, outcomes, rands)
def test_only_the_handlers_own_failures_and_lonely_deaths_are_charged(
    task: Claimed, policy: RetryPolicy, outcome: Outcome, rand: float
) -> None:
    ending = charge(task, policy, outcome, rand=rand)
    if outcome.kind in UNCHARGED:
        assert (ending.failures, ending.crashes) == (0, 0)
    else:
        assert ending.failures + ending.crashes == 1
    assert ending.crashes == (outcome.kind in {Kind.CRASHED, Kind.OUT_OF_MEMORY})


@given(policies, rands, st.integers(1, 20))
def test_a_task_that_always_fails_ends_after_its_attempts(policy: RetryPolicy, rand: float, most: int) -> None:
    policy = replace(policy, max_attempts=most)
    task, count = TASK, 0
    while (ending := charge(task, policy, Outcome(kind=Kind.RAISED), rand=rand)).cause is Cause.RETRY:
        task, count = task._replace(retry_count=task.retry_count + ending.failures), count + 1
        assert ending.delay <= policy.cap
    assert count == most - 1


@given(st.integers(1, 10_000))
def test_suspects_are_alone_after_few_deaths(company: int) -> None:
    rounds = 0
    while company > 1:
        company = charge(TASK, POLICY, Outcome(kind=Kind.SUSPECT, company=company), rand=0.0).isolation
        rounds += 1
    assert rounds <= 14


def test_a_result_beyond_the_limit_is_not_believed() -> None:
    ending = charge(TASK, POLICY, Outcome(kind=Kind.RETURNED, result=b"1" * (MOST_RESULT + 1)), rand=0.0)
    assert (ending.cause, ending.reason, ending.result) == (Cause.GIVE_UP, Reason.RESULT_REJECTED, None)


def test_what_replaces_a_refused_ending_replaces_itself() -> None:
    ending = charge(TASK, POLICY, Outcome(kind=Kind.RETURNED, result=b"1"), rand=0.0)
    once = rejected(ending)
    assert isinstance(once, Ending)
    assert rejected(once) == once
