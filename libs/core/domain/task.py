"""The values that the verbs take and give.

Those that a task is made of on its way (submitted, claimed, ended, moved) are tuples: thousands a second are made
straight from rows, which costs a frozen dataclass ten times as much.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from core.domain.lifecycle import Cause, TaskStatus
from core.domain.ordering import PriorityType

MAX_CRASHES = 2  # counted deaths of a task before it is QUARANTINED
FREE_WORKER_DEATHS = 2  # worker deaths before a task is granted a whole worker, and only then they count
RESCUE_BACKOFF = (0.0, 15.0, 60.0, 240.0)  # seconds before the n-th rescued restart; the last one repeats
LEASE_BEATS = 3  # a lease is this many heartbeats


class Reason(StrEnum):
    """Why an attempt ended, as written on its ending event; "what charges what" of design.md §4."""

    RETURNED = "returned"
    ERROR = "error"
    TIMEOUT = "timeout"
    CRASH = "crash"
    OUT_OF_MEMORY = "out_of_memory"
    SUSPECT = "suspect"
    RETRY_LATER = "retry_later"
    RELEASED = "released"
    FORGOTTEN = "forgotten"
    CANCELLED = "cancelled"
    RESULT_REJECTED = "result_rejected"
    WORKER_LOST = "worker_lost"


class Submission(NamedTuple):
    """A task to be: checked, with its id chosen. `payload` is JSON text. Times are aware datetimes."""

    id: UUID
    owner_id: int
    type: str
    payload: str = "null"
    queue: str = "default"
    priority: PriorityType = PriorityType.NORMAL
    title: str | None = None
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    concurrency_key: str = ""


class Submitted(NamedTuple):
    """What became of a submission: its first status. Everything else is as submitted."""

    id: UUID
    status: TaskStatus
    created_at: datetime
    gated: bool


class Claimed(NamedTuple):
    """A task that is ours to run under (attempt, claim). `payload` is JSON text.

    `isolation` is 0, or the most tasks that may share a dedicated child with it. `created_at` is in seconds since 1970.
    The defaults are the queue's, for a task where neither it nor its definition says something; None is no default.
    """

    id: UUID
    attempt: int
    claim: UUID
    type: str
    payload: str
    queue: str
    priority: PriorityType
    timeout_seconds: float | None
    max_attempts: int | None
    retry_count: int
    crash_count: int
    isolation: int
    created_at: float
    default_max_attempts: int | None = None
    default_timeout_seconds: float | None = None
    waited: float | None = None  # seconds from QUEUED to this claim; None where only the holding was read back


class Ending(NamedTuple):
    """How an attempt ended, as its holder reports it.

    `result` and `error` are JSON text; `delay` is the seconds before a RETRY may run; `failures` and `crashes` are
    what it charges (0 or 1); `isolation` replaces the row's; `logs` is text already bounded by the caller.
    """

    id: UUID
    attempt: int
    claim: UUID
    cause: Cause
    reason: Reason
    result: str | None = None
    error: str | None = None
    delay: float = 0.0
    failures: int = 0
    crashes: int = 0
    isolation: int = 0
    logs: str | None = None


class Moved(NamedTuple):
    """A row that a verb moved. `gated` rows return their key to the gate when they leave the running states."""

    id: UUID
    status: TaskStatus
    previous: TaskStatus
    queue: str
    owner_id: int
    concurrency_key: str
    gated: bool
    priority: PriorityType
    type: str
    attempt: int
    worker_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the answer to a beat tells a worker: whether it still lives, and which of its tasks are to be cancelled.

    `cordoned`: take nothing more and keep what runs, until a later answer says otherwise; `draining` is for ever.
    """

    alive: bool
    draining: bool = False
    cordoned: bool = False
    cancelling: tuple[tuple[UUID, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One row of a worker's inventory: what PostgreSQL says that it runs."""

    id: UUID
    attempt: int
    claim: UUID
    status: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFace:
    """How a worker introduces itself: a new `id` for every process and after every death, never the pod's name.

    `secret` is made with the id. Each call that acts for the worker names it, and nobody else can read it.
    """

    id: UUID
    secret: UUID
    name: str
    queues: tuple[str, ...]
    sync_types: tuple[str, ...]
    async_types: tuple[str, ...]
    sync_slots: int
    async_slots: int
    build: str = ""
    pid: int = 0
    facts: dict[str, str] = field(default_factory=dict)
