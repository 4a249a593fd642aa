"""Tasks: what is asked for. What is told of them is in `answers`."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core import strict_json
from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Submission
from core.search import PAGE_MOST
from services.api.schemas.base import In, Moment, QueueName, TypeName

MOST_PAYLOAD = 256 * 1024
MOST_BATCH = 1_000
_YEAR = 366 * 24 * 3600.0
_TYPE = "examples.wordcount:count"
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
