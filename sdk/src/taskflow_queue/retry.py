"""Retry rules: what a failed attempt leads to, and after how long.

This file is shipped twice, here and in the SDK (`taskflow_queue/retry.py`), because neither package may import the
other and an eager test run must follow the very same rules; a contract test holds the copies equal to the letter.
"""

from dataclasses import dataclass
from enum import StrEnum

_MOST_STEPS = 60  # factor ** steps overflows a float long before a task has failed that often


class Failure(StrEnum):
    """How an attempt failed, as far as the retry rules care."""

    RETRYABLE = "retryable"  # the handler raised, or ran out of time
    FATAL = "fatal"  # the handler raised what its `give_up_on` names, or not what its `retry_on` names
    LATER = "later"  # the handler asked for another time: RetryLater(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter and a cap.

    `max_attempts` counts charged failures. `initial`, `cap` are seconds; the n-th wait is drawn from
    [0, min(cap, initial * factor ** (n - 1))], "full jitter" in the terms of the AWS Architecture Blog,
    "Exponential Backoff And Jitter" (2015).
    """

    max_attempts: int = 3
    initial: float = 1.0
    factor: float = 2.0
    cap: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows a failed attempt: `again` after `delay` seconds or the end; `charge` is 1 when it counts."""

    again: bool
    delay: float
    charge: int


def backoff(policy: RetryPolicy, failures: int, *, rand: float) -> float:
    """Return the seconds to wait after the `failures`-th charged failure; `rand` is uniform in [0, 1)."""
    steps = min(max(failures - 1, 0), _MOST_STEPS)
    return min(policy.cap, policy.initial * policy.factor**steps) * rand


def decide(
    policy: RetryPolicy, failure: Failure, *, failures: int, rand: float, later: float | None = None
) -> Decision:
    """Decide what follows an attempt that failed, after `failures` charged failures before it.

    `later` is the number of seconds that RetryLater asked for; such an attempt is not charged.
    """
    match failure:
        case Failure.LATER:
            return Decision(again=True, delay=max(later or 0.0, 0.0), charge=0)
        case Failure.FATAL:
            return Decision(again=False, delay=0.0, charge=1)
        case Failure.RETRYABLE:
            charged = failures + 1
            if charged >= policy.max_attempts:
                return Decision(again=False, delay=0.0, charge=1)
            return Decision(again=True, delay=backoff(policy, charged, rand=rand), charge=1)
