"""Batches of a crowd: one large commit costs far less than many small ones, so who comes in a crowd waits a moment.

Lonely tasks never wait, and long ones wait once: the batch after it is a small one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from core import clock

if TYPE_CHECKING:
    from collections.abc import Callable

_CROWD: Final = 16  # rows of a batch that is one of a crowd
_SECONDS: Final = 0.002


async def gather(last: int, more: Callable[[], bool], event: asyncio.Event) -> None:
    """After a batch of `last` rows, wait for the next one to grow while `more` could come; `event` says that it did."""
    end = clock.monotonic() + _SECONDS
    while last >= _CROWD and more() and (left := end - clock.monotonic()) > 0:
        event.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await event.wait()
