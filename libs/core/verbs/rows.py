"""From rows to values."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Claimed, Moved

Row = Any  # asyncpg's Record: it ships no types


def moved(rows: Iterable[Row]) -> list[Moved]:
    """Return what a statement moved."""
    return [
        Moved(
            id=row["id"],
            status=TaskStatus(row["status"]),
            previous=TaskStatus(row["previous"]),
            queue=row["queue"],
            owner_id=row["owner_id"],
            concurrency_key=row["concurrency_key"],
            gated=row["gated"],
            priority=PriorityType(row["priority"]),
            type=row["type"],
            attempt=row["attempt"],
            worker_id=row["worker_id"],
        )
        for row in rows
    ]


def claimed(rows: Iterable[Row], claim: UUID) -> list[Claimed]:
    """Return the tasks held under `claim`."""
    return [
        Claimed(
            id=row["id"],
            attempt=row["attempt"],
            claim=claim,
            type=row["type"],
            payload=row["payload"],
            queue=row["queue"],
            priority=PriorityType(row["priority"]),
            owner_id=row["owner_id"],
            timeout_seconds=row["timeout_seconds"],
            max_attempts=row["max_attempts"],
            retry_count=row["retry_count"],
            crash_count=row["crash_count"],
            worker_deaths=row["worker_deaths"],
            isolation=row["isolation"],
            created_at=row["created_at"],
            seq=row["seq"],
        )
        for row in rows
    ]
