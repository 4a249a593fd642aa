"""Tasks: what is told of them."""

from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from services.api.schemas.base import Out, OutMoment

_TYPE, _ID = "examples.wordcount:count", "01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11"
_MOMENT = "2030-01-31T12:00:00Z"
_TASK: dict[str, Any] = {
    "id": _ID,
    "type": _TYPE,
    "queue": "text",
    "priority": "NORMAL",
    "title": None,
    "status": "QUEUED",
    "payload": {"path": "README.md"},
    "attempt": 0,
    "retry_count": 0,
    "max_attempts": None,
    "created_at": _MOMENT,
    "scheduled_at": _MOMENT,
    "expires_at": None,
    "updated_at": _MOMENT,
    "started_at": None,
    "finished_at": None,
    "timeout_seconds": None,
    "concurrency_key": None,
    "owner_id": 1,
    "worker_id": None,
    "progress": None,
    "error": None,
    "waiting": {"code": "no_worker_free", "detail": "All slots of the 2 workers … are taken."},
}
_LISTED = {name: value for name, value in _TASK.items() if name not in {"payload", "waiting"}}

_EVENT: dict[str, Any] = {
    "id": 1,
    "event_type": "RETRIED",
    "message": None,
    "created_at": _MOMENT,
    "attempt": 1,
    "worker_id": _ID,
    "started_at": _MOMENT,
    "cause": "error",
    "error": {"type": "OSError", "message": "disk full", "traceback": None},
}
_ATTEMPT: dict[str, Any] = {
    "attempt": 1,
    "worker_id": _ID,
    "started_at": _MOMENT,
    "ended_at": None,
    "ended_as": None,
    "cause": None,
    "error": None,
    "death": None,
}
_LOG: dict[str, Any] = {"id": 7, "attempt": 1, "created_at": _MOMENT, "text": "reading README.md\n"}


class Progress(Out):
    """How far a running task has come."""

    fraction: float
    note: str


class ErrorOut(Out):
    """Why an attempt failed."""

    type: str | None = None
    message: str | None = None
    traceback: str | None = None


class WaitingOut(Out):
    """Why a task has not started."""

    code: str
    detail: str


class TaskOut(Out):
    """A task. Lists leave out `payload` and `waiting`."""

    model_config = ConfigDict(json_schema_extra={"example": _TASK})

    id: UUID
    type: str
    queue: str
    priority: PriorityType
    title: str | None
    status: TaskStatus
    payload: Any = None
    attempt: int
    retry_count: int
    max_attempts: int | None
    created_at: OutMoment
    scheduled_at: OutMoment
    expires_at: OutMoment | None
    updated_at: OutMoment
    started_at: OutMoment | None
    finished_at: OutMoment | None
    timeout_seconds: float | None
    concurrency_key: str | None
    owner_id: int
    worker_id: UUID | None
    progress: Progress | None
    error: ErrorOut | None
    waiting: WaitingOut | None = None


class TaskPage(Out):
    """A page of tasks, newest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"tasks": [_LISTED], "next_cursor": None}})

    tasks: list[TaskOut]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last one.")


class ItemError(Out):
    """What is wrong with one task of a batch."""

    code: str
    detail: str
    field: str | None = None


class BatchItem(Out):
    """What became of one task of a batch: `id` and `status`, or `error`."""

    index: int
    id: UUID | None = None
    status: TaskStatus | None = None
    error: ItemError | None = None


class BatchOut(Out):
    """What became of a batch."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"tasks": [{"index": 0, "id": _ID, "status": "QUEUED"}], "submitted": 1}}
    )

    tasks: list[BatchItem]
    submitted: int


class ResultOut(Out):
    """A task's result, once it is there."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": _ID, "status": "COMPLETED", "result": {"words": 9}}})

    id: UUID
    status: TaskStatus
    result: Any = None
    error: ErrorOut | None = None


class EventOut(Out):
    """One line of a task's history."""

    id: int
    event_type: str
    message: str | None
    created_at: OutMoment
    attempt: int | None
    worker_id: UUID | None
    started_at: OutMoment | None
    cause: str | None
    error: ErrorOut | None


class EventsOut(Out):
    """A task's history, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"events": [_EVENT]}})

    events: list[EventOut]


class DeathOut(Out):
    """Why a worker died, as Kubernetes says it: `reason` is a word, as OOMKilled or Evicted."""

    reason: str
    message: str


class AttemptOut(Out):
    """One start of a task and what it came to; the ending is null while it runs."""

    attempt: int
    worker_id: UUID | None
    started_at: OutMoment
    ended_at: OutMoment | None
    ended_as: str | None
    cause: str | None
    error: ErrorOut | None
    death: DeathOut | None = Field(description="Why its worker died, where that ended it and somebody knows.")


class AttemptsOut(Out):
    """A task's attempts, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"attempts": [_ATTEMPT]}})

    attempts: list[AttemptOut]


class LogOut(Out):
    """A piece of what a handler wrote."""

    id: int
    attempt: int
    created_at: OutMoment
    text: str


class LogsOut(Out):
    """What the handlers of a task wrote, oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"logs": [_LOG]}})

    logs: list[LogOut]
