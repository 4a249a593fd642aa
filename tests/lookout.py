"""`until` for what is asked by awaiting: no test sleeps, each waits for a condition, with a bound."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def happens(found: Callable[[], Awaitable[T]], within: float = 10.0) -> T:
    """Ask again until the answer is true, and return it; a TimeoutError says what was waited for in vain."""
    end = monotonic() + within
    while not (answer := await found()):
        if monotonic() > end:
            raise TimeoutError(f"not within {within} s, the last answer was {answer!r}")
        await asyncio.sleep(0.002)
    return answer
