"""Time and chance come in here, and nowhere else.

Everything that measures how long something took uses `monotonic`; `now` is for what people read and for
`scheduled_at`, and no decision about who owns a task may rest on it.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the loops need of time; tests bring their own."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow."""
        ...

    def rand(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Come back after that long."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only ever grow; on Linux not counted while the machine sleeps."""
        return time.monotonic()

    def rand(self) -> float:
        """A number in [0, 1), for jitter: never for a secret."""
        return random.random()

    async def sleep(self, seconds: float) -> None:
        """Come back after that long."""
        await asyncio.sleep(seconds)


system = SystemClock()
now = system.now
monotonic = system.monotonic
rand = system.rand


def pause(seconds: float) -> None:
    """Block this thread: for start-up code that has no event loop."""
    time.sleep(seconds)
