"""The tables, as SQLAlchemy models: the source for Alembic and the words of `core.search`.

The hot statements are the files of `core/sql`; every index here serves one of them, and none has `status` as a key.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Identity, Index, Integer, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.access_models import FunctionSets, Installation, LoginTries
from core.domain.events import EventType
from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from core.leader_models import Leader, Leases, ReadyFloors
from core.model_base import FALSE, NOW, TRUE, ZERO, Base, event_type, priority_type, task_event_seq, task_status

__all__ = [
    "ApiKey",
    "Base",
    "EventType",
    "FunctionSets",
    "Installation",
    "Leader",
    "Leases",
    "LoginTries",
    "PriorityType",
    "ReadyFloors",
    "TaskEvents",
    "TaskStatus",
    "Tasks",
    "User",
    "Webhook",
]


class User(Base):
    """A person or a program that submits tasks. `password` holds an argon2id hash, never the password."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    username: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(server_default=FALSE)
    is_active: Mapped[bool] = mapped_column(server_default=TRUE)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class ApiKey(Base):
    """A key of a user. Only `hash` is kept: SHA-256 of the secret half; `prefix` finds the row."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    prefix: Mapped[str] = mapped_column(unique=True)
    hash: Mapped[bytes]
    owner_id: Mapped[int] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    is_active: Mapped[bool] = mapped_column(server_default=TRUE)
    last_used_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]


class Webhook(Base):
    """Where a user wants to be told of endings. Deliveries come with a later issue; the table keeps its name."""

    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    owner_id: Mapped[int] = mapped_column(index=True)
    url: Mapped[str]
    secret: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default=TRUE)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Tasks(Base):
    """A task from submission to its end. `concurrency_key` is "" when there is none.

    `seq` is its place in the order of starting, given by the database whenever the row becomes QUEUED. `attempt`
    and `claim` are the fence. `retry_count` counts charged failures, `crash_count` charged deaths, `worker_deaths`
    uncharged ones. `isolation` is 0, or how many tasks may share a dedicated child with it. Two triggers, which only
    the migrations make, refuse a CANCELLING task without worker or claim, and a change of an ended task but a retry.
    """

    __tablename__ = "tasks"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int | None]
    owner_id: Mapped[int]
    type: Mapped[str]
    queue: Mapped[str]
    priority: Mapped[PriorityType] = mapped_column(priority_type, server_default="NORMAL")
    title: Mapped[str | None]
    payload: Mapped[dict[str, Any]]
    payload_bytes: Mapped[int] = mapped_column(Integer)
    status: Mapped[TaskStatus] = mapped_column(task_status)
    gated: Mapped[bool] = mapped_column(server_default=FALSE)
    permit: Mapped[bool] = mapped_column(server_default=FALSE)
    concurrency_key: Mapped[str] = mapped_column(server_default="")
    scheduled_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    timeout_seconds: Mapped[float | None]
    max_attempts: Mapped[int | None] = mapped_column(SmallInteger)
    attempt: Mapped[int] = mapped_column(server_default=ZERO)
    claim: Mapped[UUID | None]
    worker_id: Mapped[UUID | None]
    retry_count: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    crash_count: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    worker_deaths: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    isolation: Mapped[int] = mapped_column(SmallInteger, server_default=ZERO)
    generation: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    cancel_deadline: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        Index("tasks_ready", "queue", "type", "priority", "seq", postgresql_where=text("status = 'QUEUED'")),
        Index("tasks_due", "scheduled_at", postgresql_where=text("status = 'PENDING' and not gated")),
        Index("tasks_delayed", "queue", postgresql_where=text("status = 'PENDING' and not gated")),
        Index(
            "tasks_gate",
            "queue",
            "owner_id",
            "concurrency_key",
            "priority",
            "scheduled_at",
            "id",
            postgresql_where=text("status = 'PENDING' and gated"),
        ),
        Index(
            "tasks_permits",
            "queue",
            "owner_id",
            "concurrency_key",
            postgresql_where=text("gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')"),
        ),
        Index("tasks_held", "worker_id", postgresql_where=text("status in ('IN_PROGRESS', 'CANCELLING')")),
        Index(
            "tasks_expiring",
            "expires_at",
            postgresql_where=text("expires_at is not null and status in ('BLOCKED', 'PENDING', 'QUEUED')"),
        ),
        Index("tasks_cancelling", "cancel_deadline", postgresql_where=text("cancel_deadline is not null")),
        Index("tasks_stopping", "worker_id", postgresql_where=text("cancel_deadline is not null")),
        Index("tasks_finished", "queue", "finished_at", postgresql_where=text("status = 'COMPLETED'")),
        Index(
            "tasks_failed",
            "queue",
            "finished_at",
            postgresql_where=text("status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED')"),
        ),
        Index("tasks_owner", "owner_id", "id"),
        Index(
            "tasks_gated_types",
            "queue",
            "type",
            "scheduled_at",
            postgresql_where=text("status = 'PENDING' and gated and type <> ''"),
        ),
        Index("tasks_blocked", "queue", postgresql_where=text("status = 'BLOCKED'")),
        CheckConstraint(
            "status <> 'IN_PROGRESS' or (worker_id is not null and claim is not null)", name="tasks_running_is_held"
        ),
        {
            "postgresql_with": {
                "fillfactor": "70",
                "autovacuum_vacuum_scale_factor": "0.02",
                "autovacuum_analyze_scale_factor": "0.05",
            }
        },
    )


class TaskEvents(Base):
    """The append-only audit trail, partitioned by day; partitions are dropped whole when their time has come."""

    __tablename__ = "task_events"

    task_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, server_default=task_event_seq.next_value())
    created_at: Mapped[datetime] = mapped_column(primary_key=True, server_default=NOW)
    event_type: Mapped[EventType] = mapped_column(event_type)
    message: Mapped[str | None]
    attempt: Mapped[int | None]
    claim: Mapped[UUID | None]
    worker_id: Mapped[UUID | None]
    started_at: Mapped[datetime | None]
    cause: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]

    __table_args__ = ({"postgresql_partition_by": "RANGE (created_at)"},)


class TaskLogs(Base):
    """What handlers wrote, by attempt; bounded by the worker."""

    __tablename__ = "task_logs"

    task_id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    text: Mapped[str]


class Queues(Base):
    """A queue's settings. `max_concurrent` 0 is no cap; `max_per_key` caps each concurrency key, 0 is no cap.

    The defaults are for tasks where neither they nor their definitions say something. `concurrency` is how many child
    processes a worker of this queue shall have, null is the worker's own setting. `taskqueue` says which TaskQueue of
    Kubernetes sets this queue, and what it said last; null is none.
    """

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused: Mapped[bool] = mapped_column(server_default=FALSE)
    max_concurrent: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    max_per_key: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    completed_seconds: Mapped[int] = mapped_column(Integer, server_default=text("604800"))
    failed_seconds: Mapped[int] = mapped_column(Integer, server_default=text("2592000"))
    default_max_attempts: Mapped[int | None] = mapped_column(SmallInteger)
    default_timeout_seconds: Mapped[float | None]
    concurrency: Mapped[int | None] = mapped_column(Integer)
    taskqueue: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=NOW)


class QueueTypes(Base):
    """The task types that the newest build of a queue's workers announced; sorted, never empty.

    `announced_at` and `template` are of the last registration, also of one that brought no new types. `template` is
    the hash of that worker's pod template; "" for a worker that named none.
    """

    __tablename__ = "queue_types"

    queue: Mapped[str] = mapped_column(primary_key=True)
    types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    announced_at: Mapped[datetime] = mapped_column(server_default=NOW)
    template: Mapped[str] = mapped_column(server_default=text("''"))


class Workers(Base):
    """One row per worker process. `state` is alive, cordoned, draining or dead, and dead is one-way.

    `facts` say where it lives: pod, pod_uid, namespace, node, template. `death` is Kubernetes's: reason, message, at.
    `functions` is the digest of those that it calls, `secret_hash` the SHA-256 of what proves a call to be its own,
    `held_endings` what PostgreSQL has not taken for a minute. No index on what beats change: they stay in their page.
    """

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="alive")
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    sync_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    async_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    sync_slots: Mapped[int] = mapped_column(Integer)
    async_slots: Mapped[int] = mapped_column(Integer)
    free_sync: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    free_async: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    build: Mapped[str] = mapped_column(server_default="")
    pid: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    facts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    death: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    functions: Mapped[str | None]
    secret_hash: Mapped[bytes | None]
    held_endings: Mapped[int] = mapped_column(Integer, server_default=ZERO)
    beat_seq: Mapped[int] = mapped_column(server_default=ZERO)
    beat_at: Mapped[datetime] = mapped_column(server_default=NOW)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)

    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)


class IdempotencyKeys(Base):
    """The first answer to a keyed submit: kept 24 hours."""

    __tablename__ = "idempotency_keys"

    owner_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[bytes]
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW, index=True)
