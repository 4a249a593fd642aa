"""Reading tasks: the one dynamic query builder of the repository, and what belongs to one task.

Pages are keyset pages over the id, newest first: a cursor is the last id seen, so a page costs the same however far
one has paged.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.domain.lifecycle import TaskStatus
from core.pool import Tx

PAGE_MOST = 200
_JSON = ("payload", "progress", "result", "error", "death")
_COLUMNS = """id, owner_id, type, queue, priority::text as priority, title, status::text as status, gated, permit,
    concurrency_key, scheduled_at, expires_at, timeout_seconds, max_attempts, attempt, worker_id, retry_count,
    crash_count, worker_deaths, isolation, generation, progress::text as progress, error::text as error, created_at,
    updated_at, started_at, finished_at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks are wanted; None is no condition. `owner_id` None means everybody's."""

    owner_id: int | None = None
    status: Sequence[TaskStatus] = ()
    queue: str | None = None
    type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def _conditions(wanted: Filter, after: UUID | None) -> Iterable[tuple[str, object]]:
    if wanted.owner_id is not None:
        yield "owner_id = ${}", wanted.owner_id
    if wanted.status:
        yield "status::text = any (${}::text[])", [status.value for status in wanted.status]
    if wanted.queue is not None:
        yield "queue = ${}", wanted.queue
    if wanted.type is not None:
        yield "type = ${}", wanted.type
    if wanted.created_after is not None:
        yield "created_at >= ${}", wanted.created_after
    if wanted.created_before is not None:
        yield "created_at < ${}", wanted.created_before
    if after is not None:
        yield "id < ${}", after


async def search(tx: Tx, wanted: Filter, *, after: UUID | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Return up to `limit` tasks, newest first, without payloads and results; `after` is the last id seen."""
    clauses, values = [], []
    for text, value in _conditions(wanted, after):
        values.append(value)
        clauses.append(text.format(len(values)))
    where = f"where {' and '.join(clauses)}" if clauses else ""
    values.append(min(limit, PAGE_MOST))
    rows = await tx.fetch(f"select {_COLUMNS} from tasks {where} order by id desc limit ${len(values)}", *values)  # noqa: S608 - fixed words and numbers only
    return [_task(row) for row in rows]


async def get(tx: Tx, task: UUID, *, owner_id: int | None) -> dict[str, Any] | None:
    """Return a task with its payload and result; None when there is none, or it is another owner's."""
    row = await tx.fetchrow(
        f"select {_COLUMNS}, payload::text as payload, result::text as result from tasks"  # noqa: S608 - fixed words
        " where id = $1 and ($2::bigint is null or owner_id = $2)",
        task,
        owner_id,
    )
    return None if row is None else _task(row)


async def statuses(tx: Tx, tasks: Sequence[UUID]) -> dict[UUID, TaskStatus]:
    """Return the status of each of `tasks` that is there."""
    rows = await tx.fetch(
        "select id, status::text as status from tasks where id = any ($1::uuid[])",
        list(tasks),
    )
    return {row["id"]: TaskStatus(row["status"]) for row in rows}


async def events(tx: Tx, task: UUID, *, limit: int = 1000) -> list[dict[str, Any]]:
    """Return the audit trail of a task, oldest first."""
    rows = await tx.fetch(
        "select id, event_type::text as event_type, message, created_at, attempt, worker_id, started_at, cause,"
        " error::text as error from task_events where task_id = $1 order by created_at, id limit $2",
        task,
        limit,
    )
    return [_task(row) for row in rows]


async def attempts(tx: Tx, task: UUID) -> list[dict[str, Any]]:
    """Return the attempts of a task: its STARTED events, each joined with its ending.

    `death` is why the attempt's worker died, as the operator noted it: it is looked up now, because Kubernetes may say
    it after the task was taken back. A task that was given back went with its worker when that beat no more afterwards.
    """
    rows = await tx.fetch(
        """select started.attempt, started.worker_id, started.created_at as started_at,
                  ended.created_at as ended_at, ended.event_type::text as ended_as, ended.cause,
                  ended.error::text as error,
                  (select json_build_object('reason', death ->> 'reason', 'message', death ->> 'message')::text
                   from workers
                   where workers.id = started.worker_id and death is not null
                     and (ended.cause = 'worker_lost' or ended.claim is null
                          or ended.event_type = 'RELEASED' and beat_at < ended.created_at + interval '15 seconds')
                  ) as death
           from task_events as started
           left join task_events as ended
             on ended.task_id = started.task_id and ended.attempt = started.attempt and ended.claim = started.claim
            and ended.event_type::text not in ('STARTED', 'FENCED', 'CANCEL_REQUESTED')
           where started.task_id = $1 and started.event_type::text = 'STARTED'
           order by started.attempt""",
        task,
    )
    return [_task(row) for row in rows]


async def logs(tx: Tx, task: UUID, *, attempt: int | None = None, after: int = 0) -> list[dict[str, Any]]:
    """Return what the handler wrote, oldest first; `after` is the last chunk seen."""
    rows = await tx.fetch(
        "select id, attempt, created_at, text from task_logs where task_id = $1 and id > $3"
        " and ($2::bigint is null or attempt = $2) order by id limit 1000",
        task,
        attempt,
        after,
    )
    return [dict(row) for row in rows]


def _task(row: Any) -> dict[str, Any]:
    found = dict(row)
    for name in _JSON:
        if found.get(name) is not None:
            found[name] = json.loads(found[name])
    return found
