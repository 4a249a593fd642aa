"""Time and chance come in here, so that tests bring their own."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_walls: list[Callable[[], datetime]] = [lambda: datetime.now(UTC)]


def now() -> datetime:
    """The wall clock, in UTC."""
    return _walls[-1]()


@contextmanager
def wall(other: Callable[[], datetime]) -> Iterator[None]:
    """Take the wall clock from `other` meanwhile."""
    _walls.append(other)
    try:
        yield
    finally:
        _walls.remove(other)


def monotonic() -> float:
    """Seconds that only ever grow."""
    return time.monotonic()


def rand() -> float:
    """A number in [0, 1), for jitter: never for a secret."""
    return random.random()  # noqa: S311 - as the docstring says


def pause(seconds: float) -> None:
    """Block this thread."""
    time.sleep(seconds)


async def sleep(seconds: float) -> None:
    """Come back after that long."""
    await asyncio.sleep(seconds)
