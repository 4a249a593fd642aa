"""Tasks: read them, wait for them, cancel them, give them another life. Submitting is in `submits`."""

import base64
import binascii
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from core import lookups, search
from core import queue_manager as queue
from core.credentials import Principal
from core.domain.lifecycle import ENDED, RUNNING, TaskStatus
from core.errors import IllegalMove, Invalid, NotFound
from services.api import bodies
from services.api.deps import Use, Who
from services.api.openapi import body, example, problems
from services.api.parts import Parts
from services.api.schemas.answers import AttemptsOut, EventsOut, LogsOut, ResultOut, TaskOut, TaskPage
from services.api.schemas.tasks import CancelIn, TaskQuery

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])
_encode = msgspec.json.Encoder().encode
_ID = "01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11"


TaskId = Annotated[UUID, Path(examples=[_ID])]


def told(row: dict[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """Return a task as it is answered; `whole` has the payload as well."""
    task = {name: row[name] for name in _SHOWN}
    task["concurrency_key"] = row["concurrency_key"] or None
    if whole:
        task["payload"] = row["payload"]
        task["waiting"] = None
    return task


_SHOWN = tuple(name for name in TaskOut.model_fields if name not in {"payload", "waiting"})


def as_json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `value` as the answer."""
    return Response(_encode(value), status_code=status, media_type="application/json", headers=headers)


@router.get("", summary="List tasks", responses={**example(200, TaskPage), **problems(422)})
async def list_tasks(who: Who, parts: Use, asked: Annotated[TaskQuery, Query()]) -> Response:
    """Return your tasks, newest first, without payloads; an administrator sees everybody's."""
    wanted = search.Filter(
        owner_id=who.scope,
        status=tuple(asked.status),
        queue=asked.queue,
        type=asked.type,
        created_after=asked.created_after,
        created_before=asked.created_before,
    )
    after = _from_cursor(asked.cursor) if asked.cursor is not None else None
    async with parts.reads.connection() as tx:
        rows = await search.search(tx, wanted, after=after, limit=asked.limit)
    # A full page may be the last one: then the next is empty, which costs one request and no count.
    following = _to_cursor(rows[-1]["id"]) if len(rows) == asked.limit else None
    return as_json({"tasks": [told(row, whole=False) for row in rows], "next_cursor": following})


@router.get("/{task_id}", summary="Read a task", responses={**example(200, TaskOut), **problems(404, 422)})
async def read(who: Who, task_id: TaskId, parts: Use) -> Response:
    """Return a task. `waiting` says why one that has not started has not."""
    async with parts.reads.connection() as tx:
        row = await _find(tx, task_id, who)
        waiting = await lookups.explain(tx, row)
    task = told(row)
    if waiting is not None:
        task["waiting"] = {"code": waiting.code.value, "detail": waiting.detail}
    return as_json(task)


@router.get(
    "/{task_id}/result",
    summary="Read or await a task's result",
    responses={
        **example(200, ResultOut, "The task has ended; without success `result` is null and `error` says why."),
        **example(202, ResultOut, "It has not ended."),
        **problems(404, 422),
    },
)
async def result(
    who: Who,
    task_id: TaskId,
    parts: Use,
    wait: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False, description="Seconds to wait for the end.")] = 0.0,
) -> Response:
    """Return the result, waiting for it up to `wait` seconds; 202 means: ask again."""
    row = await _read(parts, task_id, who)
    if row["status"] not in ENDED and wait > 0:
        await parts.endings.wait(task_id, wait)
        row = await _read(parts, task_id, who)
    ended = {"id": row["id"], "status": row["status"]}
    if row["status"] not in ENDED:
        return as_json(ended, 202)
    if row["status"] == TaskStatus.COMPLETED:
        return as_json({**ended, "result": row["result"]})
    return as_json({**ended, "result": None, "error": row["error"]})


@router.get(
    "/{task_id}/events", summary="Read a task's history", responses={**example(200, EventsOut), **problems(404, 422)}
)
async def events(who: Who, task_id: TaskId, parts: Use) -> Response:
    """Return everything that happened to a task, oldest first."""
    async with parts.reads.connection() as tx:
        await _find(tx, task_id, who)
        return as_json({"events": await search.events(tx, task_id)})


@router.get(
    "/{task_id}/attempts",
    summary="Read a task's attempts",
    responses={**example(200, AttemptsOut), **problems(404, 422)},
)
async def attempts(who: Who, task_id: TaskId, parts: Use) -> Response:
    """Return each start of a task and what it came to, oldest first."""
    async with parts.reads.connection() as tx:
        await _find(tx, task_id, who)
        return as_json({"attempts": await search.attempts(tx, task_id)})


@router.get(
    "/{task_id}/logs", summary="Read what a task wrote", responses={**example(200, LogsOut), **problems(404, 422)}
)
async def logs(
    who: Who,
    task_id: TaskId,
    parts: Use,
    attempt: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="The last `id` seen: only later ones.")] = 0,
) -> Response:
    """Return what the handler wrote, oldest first, at most 1,000 pieces."""
    async with parts.reads.connection() as tx:
        await _find(tx, task_id, who)
        return as_json({"logs": await search.logs(tx, task_id, attempt=attempt, after=after)})


@router.post(
    "/{task_id}:cancel",
    summary="Cancel a task",
    openapi_extra=body(CancelIn, required=False),
    responses={
        **example(200, TaskOut, "It is cancelled: no result will be accepted, no attempt will start."),
        **example(202, TaskOut, "It runs and was asked to stop."),
        **problems(400, 404, 409, 413, 415, 422),
    },
)
async def cancel(who: Who, task_id: TaskId, request: Request, parts: Use) -> Response:
    """Cancel a waiting task at once; ask a running one to stop, or cut it off with mode `force`."""
    how = await bodies.read_model(request, CancelIn)
    force = how.mode == "force"
    # One statement, which is a transaction of its own: a process that stops here keeps no lock on the task.
    async with parts.writes.connection() as tx:
        moved = await queue.cancel(
            tx, [task_id], owner_id=who.scope, by=who.username, force=force, grace=how.grace_seconds
        )
    await parts.references.hint_moved(moved)
    for task in moved:
        if task.worker_id is not None and task.previous in RUNNING:
            await parts.references.publish_cancel(task.worker_id, [task_id], force=force)
    row = await _read(parts, task_id, who)
    # A second cancel finds nothing to move: the answer is what the first one led to.
    if not moved and row["status"] not in {TaskStatus.CANCELLING, TaskStatus.CANCELLED}:
        message = f"A task that is {row['status']} cannot be cancelled"
        raise IllegalMove(message, fix="only tasks that have not ended can be")
    # The code tells what this cancel did; a task that was asked to stop may have ended since, and `row` says how.
    status = moved[0].status if moved else row["status"]
    return as_json(told(row), 202 if status == TaskStatus.CANCELLING else 200)


@router.post(
    "/{task_id}:retry",
    summary="Give an ended task a new life",
    responses={**example(200, TaskOut), **problems(404, 409, 422)},
)
async def retry(who: Who, task_id: TaskId, parts: Use) -> Response:
    """Run a task again that ended without success; its counters start anew."""
    async with parts.writes.connection() as tx:  # one statement, as in `cancel`
        moved = await queue.redrive(tx, [task_id], owner_id=who.scope, by=who.username)
    await parts.references.hint_moved(moved)
    row = await _read(parts, task_id, who)
    if not moved:
        message = f"A task that is {row['status']} cannot be run again"
        raise IllegalMove(message, fix="only FAILED, CANCELLED, EXPIRED and QUARANTINED tasks can")
    return as_json(told(row))


async def _read(parts: Parts, task_id: UUID, who: Principal) -> dict[str, Any]:
    async with parts.reads.connection() as tx:
        return await _find(tx, task_id, who)


async def _find(tx: Any, task_id: UUID, who: Principal) -> dict[str, Any]:
    row = await search.get(tx, task_id, owner_id=who.scope)
    if row is None:
        message = "There is no such task"
        raise NotFound(message, fix="GET /v1/tasks lists yours")
    return row


def _to_cursor(task: UUID) -> str:
    return base64.urlsafe_b64encode(task.bytes).decode().rstrip("=")


def _from_cursor(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        message = "This is no cursor of ours"
        raise Invalid(message, fix="give the next_cursor of the page before, unchanged", field="cursor") from None
