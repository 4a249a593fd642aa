"""What charges what (design.md §4): how an attempt ended, and what that means for its task. Pure.

A failing handler charges a failure. A child's death charges a crash to the task that was alone in it; several become
suspects and are tried again in smaller company. Whatever the worker does for reasons of its own charges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never

import msgspec

from core.domain.lifecycle import Cause
from core.domain.retry import Failure, RetryPolicy, backoff, decide
from core.domain.task import MAX_CRASHES, Ending, Reason

if TYPE_CHECKING:
    from core.domain.task import Claimed

MOST_RESULT = 1024 * 1024  # bytes of JSON; the child keeps to it, and is not believed


class Kind(StrEnum):
    """How an attempt ended.

    The first six, SUSPECT and RELEASED are a child's words; the others, and SUSPECT too, the supervisor finds itself.
    """

    RETURNED = "returned"
    RAISED = "raised"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LATER = "later"
    REJECTED = "rejected"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    SUSPECT = "suspect"
    RELEASED = "released"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as people read it."""

    type: str
    message: str
    traceback: str = ""


class Outcome(NamedTuple):
    """How one attempt ended. `company` is how many tasks were in the child that died, itself included.

    `seconds` is how long the handler ran, where the child has said it.
    """

    kind: Kind
    result: bytes | None = None
    error: ErrorInfo | None = None
    fatal: bool = False
    later: float | None = None
    logs: str = ""
    seconds: float = 0.0
    company: int = 1


def charge(task: Claimed, policy: RetryPolicy, outcome: Outcome, *, rand: float) -> Ending:
    """Return how the attempt is to be recorded; `rand` is uniform in [0, 1)."""
    match outcome.kind:
        case Kind.RETURNED if len(outcome.result or b"") <= MOST_RESULT:
            # A byte that is no UTF-8 makes it no JSON, which PostgreSQL then says.
            result, logs = (outcome.result or b"null").decode(errors="replace"), outcome.logs or None
            return Ending(task.id, task.attempt, task.claim, Cause.SUCCEED, Reason.RETURNED, result, logs=logs)
        case Kind.RETURNED | Kind.REJECTED:
            return _ending(task, outcome, Cause.GIVE_UP, Reason.RESULT_REJECTED, failures=1)
        case Kind.RAISED | Kind.TIMED_OUT | Kind.LATER:
            return _failed(task, policy, outcome, rand)
        case Kind.CANCELLED:
            return _ending(task, outcome, Cause.STOP, Reason.CANCELLED)
        case Kind.CRASHED | Kind.OUT_OF_MEMORY:
            return _crashed(task, policy, outcome, rand)
        case Kind.SUSPECT:
            smaller = max(1, outcome.company // 2)
            return _ending(task, outcome, Cause.RELEASE, Reason.SUSPECT, isolation=smaller)
        case Kind.RELEASED:
            return _ending(task, outcome, Cause.RELEASE, Reason.RELEASED, isolation=task.isolation)
        case Kind.FORGOTTEN:
            return _ending(task, outcome, Cause.RELEASE, Reason.FORGOTTEN, isolation=task.isolation)
    assert_never(outcome.kind)


def _failed(task: Claimed, policy: RetryPolicy, outcome: Outcome, rand: float) -> Ending:
    reasons = {Kind.LATER: Reason.RETRY_LATER, Kind.TIMED_OUT: Reason.TIMEOUT}
    failure = Failure.LATER if outcome.kind is Kind.LATER else Failure.FATAL if outcome.fatal else Failure.RETRYABLE
    decision = decide(policy, failure, failures=task.retry_count, rand=rand, later=outcome.later)
    return _ending(
        task,
        outcome,
        Cause.RETRY if decision.again else Cause.GIVE_UP,
        reasons.get(outcome.kind, Reason.ERROR),
        delay=decision.delay,
        failures=decision.charge,
    )


def _crashed(task: Claimed, policy: RetryPolicy, outcome: Outcome, rand: float) -> Ending:
    reason = Reason.CRASH if outcome.kind is Kind.CRASHED else Reason.OUT_OF_MEMORY
    crashes = task.crash_count + 1
    if crashes >= MAX_CRASHES:
        return _ending(task, outcome, Cause.QUARANTINE, reason, crashes=1)
    delay = backoff(policy, crashes, rand=rand)
    # It stays alone from now on, so that a second death is its own beyond doubt as well.
    return _ending(task, outcome, Cause.RETRY, reason, delay=delay, crashes=1, isolation=1)


def _ending(
    task: Claimed,
    outcome: Outcome,
    cause: Cause,
    reason: Reason,
    *,
    delay: float = 0.0,
    failures: int = 0,
    crashes: int = 0,
    isolation: int = 0,
) -> Ending:
    error = None if outcome.error is None else msgspec.json.encode(outcome.error).decode()
    logs = outcome.logs or None
    return Ending(
        task.id, task.attempt, task.claim, cause, reason, None, error, delay, failures, crashes, isolation, logs
    )


def rejected(ending: Ending) -> Ending:
    """Return what is recorded instead of an ending that PostgreSQL refuses to store."""
    error = ErrorInfo(type="ResultRejected", message="PostgreSQL cannot store what this attempt ended with")
    return Ending(
        id=ending.id,
        attempt=ending.attempt,
        claim=ending.claim,
        cause=Cause.GIVE_UP,
        reason=Reason.RESULT_REJECTED,
        error=msgspec.json.encode(error).decode(),
        failures=1,
    )
