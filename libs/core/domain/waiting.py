"""Why a task has not started: facts in, one code and one sentence out. `core.lookups` reads the facts."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from core.domain.lifecycle import WAITING, TaskStatus


class WaitingCode(StrEnum):
    """The reasons. The labels are API and never change."""

    DEPENDENCIES = "dependencies"
    EXPIRED = "expired"
    RETRY_BACKOFF = "retry_backoff"
    DELAYED = "delayed"
    QUEUE_PAUSED = "queue_paused"
    NO_WORKER = "no_worker"
    NO_CAPABLE_WORKER = "no_capable_worker"
    CONCURRENCY_LIMIT = "concurrency_limit"
    WHOLE_WORKER = "whole_worker"
    RESULTS_HELD = "results_held"
    NO_WORKER_FREE = "no_worker_free"
    STARTING = "starting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about a waiting task at the moment `now`.

    `queue_workers` are live workers of its queue, `capable_workers` those among them that announced its type,
    `free_slots` theirs, and `holding_workers` are those among them that hold finished results which PostgreSQL does not
    take. `queue_active` and `key_active` count tasks that hold a place under the caps; a cap of 0 is
    none. `solo` means that the task wants a whole worker to itself.
    """

    status: TaskStatus
    now: datetime
    type: str
    queue: str
    scheduled_at: datetime
    expires_at: datetime | None = None
    attempt: int = 0
    permit: bool = False
    solo: bool = False
    paused: bool = False
    queue_workers: int = 0
    capable_workers: int = 0
    free_slots: int = 0
    holding_workers: int = 0
    max_concurrent: int = 0
    queue_active: int = 0
    concurrency_key: str = ""
    max_per_key: int = 0
    key_active: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """The first thing that must change before the task can start."""

    code: WaitingCode
    detail: str


def why(facts: Facts) -> Waiting | None:
    """Return what a task waits for, or None when it has started or ended.

    The order is that of what nothing else could mend: a paused queue comes before missing workers, and both before
    a matter of time among workers that are busy.
    """
    if facts.status not in WAITING:
        return None
    for reason in (_own_time, _queue, _workers, _limits):
        found = reason(facts)
        if found is not None:
            return found
    if facts.solo:
        detail = "Workers died while it ran, so it gets a worker to itself: the next one that is idle takes it."
        return Waiting(WaitingCode.WHOLE_WORKER, detail)
    if facts.free_slots <= 0 and 0 < facts.capable_workers <= facts.holding_workers:
        detail = (
            f"Every worker that can run {facts.type!r} holds finished results that PostgreSQL does not take; "
            "an administrator sees why with: taskflow doctor"
        )
        return Waiting(WaitingCode.RESULTS_HELD, detail)
    if facts.free_slots <= 0:
        workers = "worker" if facts.capable_workers == 1 else "workers"
        detail = f"All slots of the {facts.capable_workers} {workers} that can run {facts.type!r} are taken."
        return Waiting(WaitingCode.NO_WORKER_FREE, detail)
    return Waiting(WaitingCode.STARTING, "Nothing is in its way: a worker with a free slot is about to take it.")


def _own_time(facts: Facts) -> Waiting | None:
    if facts.status is TaskStatus.BLOCKED:
        return Waiting(WaitingCode.DEPENDENCIES, "Tasks that it depends on have not finished.")
    if facts.expires_at is not None and facts.expires_at <= facts.now:
        detail = f"It was to start before {_shown(facts.expires_at)}; it is about to be marked EXPIRED."
        return Waiting(WaitingCode.EXPIRED, detail)
    if facts.status is TaskStatus.PENDING and facts.scheduled_at > facts.now:
        if facts.attempt > 0:
            detail = f"Attempt {facts.attempt} did not succeed; the next one may start at {_shown(facts.scheduled_at)}."
            return Waiting(WaitingCode.RETRY_BACKOFF, detail)
        return Waiting(WaitingCode.DELAYED, f"It is scheduled for {_shown(facts.scheduled_at)}.")
    return None


def _queue(facts: Facts) -> Waiting | None:
    if facts.paused:
        return Waiting(WaitingCode.QUEUE_PAUSED, f"Queue {facts.queue!r} is paused; an administrator can resume it.")
    return None


def _workers(facts: Facts) -> Waiting | None:
    if facts.queue_workers == 0:
        detail = f"No worker serves queue {facts.queue!r}; start one: taskflow worker --queue {facts.queue} MODULE"
        return Waiting(WaitingCode.NO_WORKER, detail)
    if facts.capable_workers == 0:
        detail = (
            f"No worker of queue {facts.queue!r} knows the type {facts.type!r}; "
            "start one that imports it, or check its spelling."
        )
        return Waiting(WaitingCode.NO_CAPABLE_WORKER, detail)
    return None


def _limits(facts: Facts) -> Waiting | None:
    if facts.permit or facts.status is not TaskStatus.PENDING:
        return None
    if facts.max_concurrent and facts.queue_active >= facts.max_concurrent:
        detail = (
            f"Queue {facts.queue!r} runs at most {facts.max_concurrent} at once, and {facts.queue_active} are active."
        )
        return Waiting(WaitingCode.CONCURRENCY_LIMIT, detail)
    if facts.concurrency_key and facts.max_per_key and facts.key_active >= facts.max_per_key:
        detail = (
            f"At most {facts.max_per_key} with the concurrency key {facts.concurrency_key!r} run at once, "
            f"and {facts.key_active} are active."
        )
        return Waiting(WaitingCode.CONCURRENCY_LIMIT, detail)
    return None


def _shown(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
