"""A claimed task for tests that care about some of its fields only: `TASK._replace(...)`."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from core.domain.ordering import PriorityType
from core.domain.task import Claimed

TASK = Claimed(
    id=UUID(int=1),
    attempt=3,
    claim=UUID(int=2),
    type="a:b",
    payload="null",
    queue="default",
    priority=PriorityType.NORMAL,
    owner_id=1,
    timeout_seconds=None,
    max_attempts=None,
    retry_count=0,
    crash_count=0,
    worker_deaths=0,
    isolation=0,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    seq=1,
)
