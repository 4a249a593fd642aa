"""Tasks: what is submitted and what is told."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core import strict_json
from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Submission
from core.search import PAGE_MOST
from services.api.schemas.base import In, Moment, Out, OutMoment, QueueName, TypeName

MOST_PAYLOAD = 256 * 1024
MOST_BATCH = 1_000
_YEAR = 366 * 24 * 3600.0
_TYPE, _ID = "examples.wordcount:count", "01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11"
_MOMENT = "2030-01-31T12:00:00Z"
_Filter = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]  # PostgreSQL's text knows no NUL
_TEXT_PATTERN = r"^[^\x00-\x1f\x7f]*$"


class TaskIn(In):
    """A task to be run."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"type": _TYPE, "payload": {"path": "README.md"}, "queue": "text"}}
    )

    type: TypeName
    payload: Any = Field(default=None, description="Any JSON value, at most 256 KiB as text without spaces.")
    queue: QueueName = "default"
    priority: Annotated[PriorityType, Field(strict=False)] = PriorityType.NORMAL
    title: Annotated[str, Field(max_length=200, pattern=_TEXT_PATTERN)] | None = None
    scheduled_at: Moment | None = Field(default=None, description="Not to start before this.")
    expires_at: Moment | None = Field(default=None, description="EXPIRED when it has not started by then.")
    timeout_seconds: Annotated[float, Field(gt=0, le=_YEAR)] | None = Field(
        default=None, description="Of each attempt. None: what the task's code says, usually no limit."
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Attempts that may fail before the task does. None: what the task's code says, or 3."
    )
    concurrency_key: Annotated[str, Field(max_length=200, pattern=_TEXT_PATTERN)] | None = Field(
        default=None, description="At most `max_per_key` (of the queue) tasks of one owner and key run at once."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "TaskIn":
        if self.scheduled_at and self.expires_at and self.expires_at <= self.scheduled_at:
            message = "expires_at must be later than scheduled_at"
            raise ValueError(message)
        return self

    def submission(self, task: UUID, owner_id: int) -> Submission:
        """Return what the verbs take. Raises ValueError when the payload is too large."""
        payload = strict_json.dumps(self.payload)
        if len(payload) > MOST_PAYLOAD // 4 and len(payload.encode()) > MOST_PAYLOAD:
            message = f"A payload may have at most {MOST_PAYLOAD} bytes"
            raise ValueError(message)
        return Submission(
            id=task,
            owner_id=owner_id,
            type=self.type,
            payload=payload,
            queue=self.queue,
            priority=self.priority,
            title=self.title,
            scheduled_at=self.scheduled_at,
            expires_at=self.expires_at,
            timeout_seconds=self.timeout_seconds,
            max_attempts=self.max_attempts,
            concurrency_key=self.concurrency_key or "",
        )


class BatchIn(In):
    """Several tasks at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"tasks": [{"type": _TYPE, "payload": {"path": "a.py"}}, {"type": _TYPE}], "atomic": True}
        }
    )

    tasks: list[TaskIn] = Field(min_length=1, max_length=MOST_BATCH)
    atomic: bool = Field(default=True, description="All or none. False: good ones go through, bad ones are told apart.")


class Envelope(In):
    """A batch whose tasks are not looked at yet, because each of them has its own answer."""

    tasks: list[Any] = Field(min_length=1, max_length=MOST_BATCH)
    atomic: bool = True


class CancelIn(In):
    """How to cancel."""

    model_config = ConfigDict(json_schema_extra={"example": {"mode": "graceful", "grace_seconds": 30}})

    mode: Literal["graceful", "force"] = Field(
        default="graceful", description="force: over at once; what the handler still does is not accepted."
    )
    grace_seconds: float = Field(default=30.0, ge=0, le=86_400, description="How long a graceful one may take.")


class TaskQuery(BaseModel):
    """Which tasks to list; conditions add up."""

    model_config = ConfigDict(extra="forbid")

    status: list[TaskStatus] = Field(default=[], description="Several are any of them.")
    queue: _Filter | None = None
    type: _Filter | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    limit: int = Field(default=50, ge=1, le=PAGE_MOST)
    cursor: _Filter | None = Field(default=None, description="`next_cursor` of the page before.")


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

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
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
        }
    )

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

    events: list[EventOut]


class AttemptOut(Out):
    """One start of a task and what it came to; the ending is null while it runs."""

    attempt: int
    worker_id: UUID | None
    started_at: OutMoment
    ended_at: OutMoment | None
    ended_as: str | None
    cause: str | None
    error: ErrorOut | None


class AttemptsOut(Out):
    """A task's attempts, oldest first."""

    attempts: list[AttemptOut]


class LogOut(Out):
    """A piece of what a handler wrote."""

    id: int
    attempt: int
    created_at: OutMoment
    text: str


class LogsOut(Out):
    """What the handlers of a task wrote, oldest first."""

    logs: list[LogOut]
