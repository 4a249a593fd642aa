"""A claimed task for tests that care about some of its fields only: `TASK._replace(...)`."""

from __future__ import annotations

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
    timeout_seconds=None,
    max_attempts=None,
    retry_count=0,
    crash_count=0,
    isolation=0,
    created_at=1_767_225_600.0,
)
