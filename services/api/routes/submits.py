"""Submitting: one task, or many. The hot way, so bodies are read and answers written here by hand."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response

from core.credentials import Principal
from core.domain.ids import uuid7_bytes
from core.domain.task import Submission, Submitted
from core.errors import IdempotencyConflict, Invalid
from core.pool import uuid_of
from core.verbs.submitting import KeyedOutcome, KeyedRequest
from services.api import bodies
from services.api.deps import charge_submit, idempotency_key_of, parts_of, principal_of
from services.api.openapi import body, example, header, problems
from services.api.parts import Parts
from services.api.problems import Refused
from services.api.routes.tasks import as_json
from services.api.schemas.answers import BatchOut, TaskOut
from services.api.schemas.tasks import BatchIn, Envelope, TaskIn

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])
_ERRORS = problems(400, 409, 413, 415, 422, 429)
_KEY = header(
    "Idempotency-Key",
    "The same key and body within 24 hours give the first answer again, with `Idempotent-Replay: true`.",
    {"type": "string", "minLength": 1, "maxLength": 255, "example": "0b2f6c1e-5d3a-4a52-9b0e-2f6b8f1f0a11"},
)
_MOST_TOLD: Final = 100  # errors of an atomic batch
_canonical: Final = msgspec.json.Encoder(order="sorted").encode


@router.post(
    "",
    status_code=201,
    summary="Submit a task",
    openapi_extra={**body(TaskIn), "parameters": [_KEY]},
    responses={
        **example(201, TaskOut, "Written: it will run."),
        **example(200, TaskOut, "The answer that this Idempotency-Key got before."),
        **_ERRORS,
    },
)
async def submit(request: Request) -> Response:
    """Submit a task. An unknown type is accepted and waits; `GET /v1/tasks/{id}` says for what."""
    parts = parts_of(request)
    who = await principal_of(request)
    await charge_submit(request, who, 1)
    key = idempotency_key_of(request)
    value = await bodies.read_json(request)
    [new] = _new_ids(parts, 1)
    task = _submission(bodies.checked(TaskIn, value), new, who)
    written = await _write(parts, who, key, _fingerprint(request, value, key), [task])
    [born] = written.born
    headers = {"Location": f"/v1/tasks/{born.id}", **written.headers}
    return as_json(_told(task, born), written.status, headers)


@router.post(
    ":batch",
    status_code=201,
    summary="Submit many tasks",
    openapi_extra={**body(BatchIn), "parameters": [_KEY]},
    responses={
        **example(201, BatchOut, "Written; not atomic: those without `error`."),
        **example(200, BatchOut, "The answer that this Idempotency-Key got before."),
        **_ERRORS,
    },
)
async def submit_batch(request: Request) -> Response:
    """Submit up to 1,000 tasks: all or none, or with `atomic: false` each on its own."""
    parts = parts_of(request)
    who = await principal_of(request)
    key = idempotency_key_of(request)
    value = await bodies.read_json(request)
    envelope = bodies.checked(Envelope, value)
    await charge_submit(request, who, len(envelope.tasks))
    tasks, errors = _look(envelope.tasks, parts, who)
    if errors and envelope.atomic:
        raise _refused(errors)
    written = _Written((), 201, {})
    if tasks:
        written = await _write(parts, who, key, _fingerprint(request, value, key), list(tasks.values()))
    items: dict[int, dict[str, Any]] = {index: {"index": index, "error": error} for index, error in errors.items()}
    for index, born in zip(tasks, written.born, strict=True):
        items[index] = {"index": index, "id": born.id, "status": born.status}
    answer = {"tasks": [items[index] for index in sorted(items)], "submitted": len(written.born)}
    return as_json(answer, written.status, written.headers)


HOT: Final = {("POST", "/v1/tasks"): submit, ("POST", "/v1/tasks:batch"): submit_batch}


@dataclass(frozen=True, slots=True)
class _Written:
    """What was written, or had been; and how to say so."""

    born: Sequence[Submitted]
    status: int
    headers: dict[str, str]


async def _write(
    parts: Parts, who: Principal, key: str | None, fingerprint: bytes, tasks: list[Submission]
) -> _Written:
    if key is None:
        return _Written(await parts.submitter.submit(tasks), 201, {})
    request = KeyedRequest(owner_id=who.user_id, key=key, body_hash=fingerprint, submissions=tasks)
    answer = await parts.submitter.submit_keyed(request)
    if answer.outcome is KeyedOutcome.CONFLICT:
        message = "This Idempotency-Key was used before, with another body"
        raise IdempotencyConflict(message, fix="use a new key for a new request", field="Idempotency-Key")
    if answer.outcome is KeyedOutcome.REPLAYED:
        return _Written(answer.submitted, 200, {"Idempotent-Replay": "true"})
    return _Written(answer.submitted, 201, {})


def _fingerprint(request: Request, value: object, key: str | None) -> bytes:
    """Return what tells whether a keyed request is the same: path and body, whatever the order of its fields."""
    if key is None:
        return b""
    return hashlib.sha256(request.scope["path"].encode() + b"\n" + _canonical(value)).digest()


def _look(values: list[Any], parts: Parts, who: Principal) -> tuple[dict[int, Submission], dict[int, dict[str, Any]]]:
    """Return the good tasks and the errors of the bad ones, both by index."""
    tasks: dict[int, Submission] = {}
    errors: dict[int, dict[str, Any]] = {}
    for index, (value, new) in enumerate(zip(values, _new_ids(parts, len(values)), strict=True)):
        at = f"tasks[{index}]"
        try:
            tasks[index] = _submission(bodies.checked(TaskIn, value, at=at), new, who, at=at)
        except Invalid as wrong:
            errors[index] = {"code": wrong.code, "detail": wrong.message, "field": wrong.field}
    return tasks, errors


def _refused(errors: dict[int, dict[str, Any]]) -> Refused:
    first = next(iter(errors.values()))
    message = f"{len(errors)} of the tasks cannot be accepted; the first: {first['detail']}"
    found = [{"index": index, **error} for index, error in list(errors.items())[:_MOST_TOLD]]
    return Refused(message, field=first["field"], found=found)


def _submission(task: TaskIn, new: UUID, who: Principal, *, at: str = "") -> Submission:
    try:
        return task.submission(new, who.user_id)
    except ValueError as wrong:
        field = f"{at}.payload" if at else "payload"
        raise Invalid(str(wrong), fix="put the data elsewhere, and their address here", field=field) from None


def _new_ids(parts: Parts, number: int) -> list[UUID]:
    """Return ids of one moment, from one draw: each asks the system for time and chance, and a batch has hundreds."""
    milliseconds, chance = int(parts.clock.now().timestamp() * 1000), secrets.token_bytes(10 * number)
    return [uuid_of(uuid7_bytes(milliseconds, chance[at : at + 10])) for at in range(0, len(chance), 10)]


def _told(task: Submission, born: Submitted) -> dict[str, Any]:
    return {
        "id": born.id,
        "type": task.type,
        "queue": task.queue,
        "priority": task.priority,
        "title": task.title,
        "status": born.status,
        "payload": msgspec.Raw(task.payload.encode()),
        "attempt": 0,
        "retry_count": 0,
        "max_attempts": task.max_attempts,
        "created_at": born.created_at,
        "scheduled_at": task.scheduled_at or born.created_at,
        "expires_at": task.expires_at,
        "updated_at": born.created_at,
        "started_at": None,
        "finished_at": None,
        "timeout_seconds": task.timeout_seconds,
        "concurrency_key": task.concurrency_key or None,
        "owner_id": task.owner_id,
        "worker_id": None,
        "progress": None,
        "error": None,
        "waiting": None,
    }
