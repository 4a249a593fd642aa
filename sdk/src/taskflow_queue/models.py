"""What the server answers, as values. A member that this version does not know is left aside."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import Any, Final

import msgspec

ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "QUARANTINED"})


class Progress(msgspec.Struct, kw_only=True):
    """How far a running task says that it is: `fraction` in [0, 1], or None when it gave only a note."""

    fraction: float | None = None
    note: str | None = None


class Failure(msgspec.Struct, kw_only=True):
    """The error of a task's last attempt."""

    type: str | None = None
    message: str | None = None
    traceback: str | None = None


class Waiting(msgspec.Struct, kw_only=True):
    """Why a task that has not started has not."""

    code: str
    detail: str = ""


class TaskInfo(msgspec.Struct, kw_only=True):
    """A task. `timeout_seconds` None is no limit; `attempt` counts starts, `retry_count` charged failures."""

    id: str
    type: str
    status: str
    queue: str = "default"
    priority: str = "NORMAL"
    title: str | None = None
    payload: Any = None
    attempt: int = 0
    retry_count: int = 0
    max_attempts: int | None = None
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    timeout_seconds: float | None = None
    concurrency_key: str | None = None
    owner_id: int | None = None
    worker_id: str | None = None
    progress: Progress | None = None
    error: Failure | None = None
    waiting: Waiting | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing moves it any more but a retry by hand."""
        return self.status in ENDED


class TaskPage(msgspec.Struct, kw_only=True):
    """Some tasks, newest first; `next_cursor` None is the end."""

    tasks: list[TaskInfo]
    next_cursor: str | None = None


class Outcome(msgspec.Struct, kw_only=True):
    """How a task ended, or where it is while it has not."""

    id: str
    status: str
    result: Any = None
    error: Failure | None = None


class Batched(msgspec.Struct, kw_only=True):
    """One member of the answer to a batch."""

    index: int
    id: str
    status: str


class BatchAnswer(msgspec.Struct, kw_only=True):
    """The answer to a batch."""

    tasks: list[Batched]


class Depth(msgspec.Struct, kw_only=True):
    """How many tasks of a queue are where."""

    pending: int = 0
    queued: int = 0
    running: int = 0
    failed: int = 0


class QueueInfo(msgspec.Struct, kw_only=True):
    """A queue. A limit of 0 is no limit."""

    name: str
    paused: bool = False
    max_concurrent: int = 0
    max_per_key: int = 0
    depth: Depth = msgspec.field(default_factory=Depth)
    oldest_queued_seconds: float | None = None


class WorkerInfo(msgspec.Struct, kw_only=True):
    """A worker process. `slots` and `free` are by lane: sync, async; `last_beat_seconds` is its last beat's age."""

    id: str
    name: str = ""
    state: str = ""
    queues: list[str] = []
    types: list[str] = []
    slots: dict[str, int] = {}
    free: dict[str, int] = {}
    running: int = 0
    build: str = ""
    last_beat_seconds: float | None = None


class KeyInfo(msgspec.Struct, kw_only=True):
    """An API key. `key` itself is known only in the answer that made it."""

    id: int | str
    name: str | None = None
    prefix: str = ""
    key: str | None = None
    is_active: bool = True
    created_at: datetime | None = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
