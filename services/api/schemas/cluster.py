"""Queues, workers and the process itself; and the shape of every error."""

from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from services.api.schemas.base import In, Out

_QUEUE: dict[str, Any] = {
    "name": "text",
    "paused": False,
    "max_concurrent": 0,
    "max_per_key": 1,
    "depth": {"pending": 0, "queued": 12, "running": 4, "failed": 0},
    "oldest_queued_seconds": 1.5,
}

_WORKER: dict[str, Any] = {
    "id": "01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11",
    "name": "worker-text-0",
    "state": "alive",
    "queues": ["text"],
    "types": ["examples.wordcount:count"],
    "slots": {"sync": 4, "async": 400},
    "free": {"sync": 1, "async": 400},
    "running": 3,
    "build": "",
    "last_beat_seconds": 0.7,
}


class DepthOut(Out):
    """How many tasks of a queue are where; counting stops at 10,000, `failed` is of the last hour."""

    pending: int
    queued: int
    running: int
    failed: int


class QueueOut(Out):
    """A queue."""

    model_config = ConfigDict(json_schema_extra={"example": _QUEUE})

    name: str
    paused: bool
    max_concurrent: int
    max_per_key: int
    depth: DepthOut
    oldest_queued_seconds: float | None


class QueuesOut(Out):
    """All queues, by name."""

    model_config = ConfigDict(json_schema_extra={"example": {"queues": [_QUEUE]}})

    queues: list[QueueOut]


class LimitsIn(In):
    """A queue's caps; 0 is none."""

    model_config = ConfigDict(json_schema_extra={"example": {"max_concurrent": 10, "max_per_key": 1}})

    max_concurrent: int = Field(ge=0, le=1_000_000, description="Tasks of the queue that run at once.")
    max_per_key: int = Field(ge=0, le=1_000_000, description="Tasks of one owner and concurrency key that run at once.")


class WorkerOut(Out):
    """A worker that has not been declared dead."""

    model_config = ConfigDict(json_schema_extra={"example": _WORKER})

    id: UUID
    name: str
    state: str
    queues: list[str]
    types: list[str]
    slots: dict[str, int]
    free: dict[str, int]
    running: int
    build: str
    last_beat_seconds: float


class WorkersOut(Out):
    """All workers that live."""

    model_config = ConfigDict(json_schema_extra={"example": {"workers": [_WORKER]}})

    workers: list[WorkerOut]


class HealthOut(Out):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "ok"}})

    status: str


class ReadyOut(Out):
    """Whether requests should be sent here. The stores are told, but do not decide: see the description."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "ready": True,
                "started": True,
                "migrated": True,
                "draining": False,
                "stores": {"postgresql": "up", "redis_high": "up", "redis_low": "up"},
            }
        }
    )

    ready: bool
    started: bool
    migrated: bool | None = Field(description="null: PostgreSQL could not be asked yet.")
    draining: bool
    stores: dict[str, str]


class Problem(Out):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:taskflow:problem:not_found",
                "title": "Not Found",
                "status": 404,
                "code": "not_found",
                "detail": "There is no such task",
                "fix": "GET /v1/tasks lists yours",
                "field": None,
                "request_id": "3f2a9c0d1b7e4455",
            }
        },
    )

    type: str
    title: str
    status: int
    code: str = Field(description="Stable; made for programs.")
    detail: str
    fix: str | None
    field: str | None
    request_id: str
    errors: list[dict[str, Any]] | None = Field(default=None, description="Each error, when there are several.")
