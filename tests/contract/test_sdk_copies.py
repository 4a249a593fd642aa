"""The SDK imports nothing of the server; what both must agree on is held equal here."""

from __future__ import annotations

from pathlib import Path

from core.domain.lifecycle import ENDED, TABLE, Cause, TaskStatus
from taskflow_queue import models, options
from taskflow_queue.eager_task import MOVES

ROOT = Path(__file__).parents[2]
LEFT_OUT = {"BLOCKED", "QUARANTINED"}  # statuses that the queue in memory never has


def test_the_queue_in_memory_moves_as_the_lifecycle_says() -> None:
    for cause, moves in MOVES.items():
        table = TABLE[Cause(cause)]
        expected = {source.value: to.free.value for source, to in table.items() if source.value not in LEFT_OUT}
        assert moves == expected, cause


def test_the_sdk_knows_all_ends_and_priorities() -> None:
    assert {status.value for status in ENDED} == models.ENDED
    assert set(models.ENDED) <= {status.value for status in TaskStatus}
    from core.domain.ordering import PriorityType

    assert {one.value for one in PriorityType} == set(options.Priority.__args__)  # type: ignore[attr-defined]
