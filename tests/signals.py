"""Waiting for what is to happen, with a bound: no test sleeps."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from core.clock import pause

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def until(found: Callable[[], T], within: float = 10.0, every: float = 0.01) -> T:
    """Ask again until the answer is true, and return it; a TimeoutError says what was waited for in vain."""
    end = monotonic() + within
    while not (answer := found()):
        if monotonic() > end:
            raise TimeoutError(f"not within {within} s, the last answer was {answer!r}")
        pause(every)
    return answer
