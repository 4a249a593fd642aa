"""What a lost COMMIT did is found out for a whole crowd at once, and not for those who have hung up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncpg import DataError

from core.errors import CommitUnknown, Invalid, Unavailable
from services.api import submitting
from services.api.submitting import _Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

CROWD = 5


async def answers(monkeypatch: pytest.MonkeyPatch, looks: list[list[int]], wrong: set[int]) -> list[object]:
    """What five get whose commit was lost, of whom the first has hung up; each look answers one more."""
    monkeypatch.setattr(submitting, "SETTLE_PAUSES", (0.0, 0.01, 0.01, 0.01))

    async def write(asked: Sequence[int]) -> Sequence[int]:
        assert len(asked) == CROWD
        waits[0].cancel()
        message = "lost"
        raise CommitUnknown(message)

    async def settle(asked: Sequence[int]) -> list[int | None]:
        looks.append(list(asked))
        if len(looks) == 1:
            message = "still away"
            raise Unavailable(message)
        if wrong & set(asked):
            raise DataError
        return [asked[0] * 10, *[None] * (len(asked) - 1)]

    flow = _Flow(write, settle)
    waits = [asyncio.create_task(flow.put(number, 1, 1)) for number in range(CROWD)]
    async with asyncio.timeout(10):
        found = await asyncio.gather(*waits, return_exceptions=True)
        await flow.close()
    return [type(one) if isinstance(one, BaseException) else one for one in found]


async def test_a_crowd_is_settled_together_without_those_who_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[list[int]] = []
    assert await answers(monkeypatch, looks, set()) == [asyncio.CancelledError, 10, 20, 30, CommitUnknown]
    assert looks == [[1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4], [3, 4]]


async def test_one_that_is_at_fault_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[list[int]] = []
    assert await answers(monkeypatch, looks, {3}) == [asyncio.CancelledError, 10, 20, Invalid, 40]
