"""What a lost COMMIT did is found out for a whole crowd at once, and not for those who have hung up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from core.errors import CommitUnknown
from services.api.submitting import _Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

CROWD = 5


async def test_a_crowd_is_settled_together_without_those_who_have_left() -> None:
    together = asyncio.Barrier(CROWD - 1)
    settled = []

    async def write(asked: Sequence[int]) -> Sequence[int]:
        assert len(asked) == CROWD
        waits[0].cancel()
        message = "lost"
        raise CommitUnknown(message)

    async def settle(asked: int) -> int:
        await together.wait()  # nobody passes before all are here
        settled.append(asked)
        return asked * 10

    flow = _Flow(write, settle)
    waits = [asyncio.create_task(flow.put(number, 1, 1)) for number in range(CROWD)]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*waits, return_exceptions=True)
        await flow.close()
    assert answers[1:] == [10, 20, 30, 40]
    assert sorted(settled) == [1, 2, 3, 4]
    with pytest.raises(asyncio.CancelledError):
        waits[0].result()
