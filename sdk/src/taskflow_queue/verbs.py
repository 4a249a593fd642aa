"""What can be asked of the server, each verb once: a flow of calls, for whoever sends them.

Owns paths and bodies. Sends nothing and repeats nothing: see wire.py and client.py.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from taskflow_queue import clock, models
from taskflow_queue.errors import (
    PartlySubmitted,
    ResultTimeout,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TaskFlowError,
    TaskQuarantined,
)
from taskflow_queue.shapes import Flow, command, listed, post
from taskflow_queue.wire import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from taskflow_queue.options import Options

H = TypeVar("H")

MOST_BATCH_TASKS: Final = 1000
MOST_BATCH_BYTES: Final = 900 * 1024  # the server takes bodies of 1 MiB
MOST_LOGS: Final = 1000  # pieces of a log in one answer
POLL_SECONDS: Final = 30.0  # the longest that one request waits for a task's end
_EARLY_SECONDS: Final = 0.25


# ── submitting ──────────────────────────────────────────────────────────────────────────────────────────


def bodies_of(type: str, payloads: Iterable[bytes], said: Options) -> list[bytes]:  # noqa: A002 - the API's name for it
    """Return the JSON of tasks around the JSON of their payloads."""
    rest = msgspec.json.encode({"type": type, **said.body()})[1:]
    return [b'{"payload":%b,%b' % (payload, rest) for payload in payloads]


def submit(body: bytes, key: str | None = None) -> Flow[str]:
    """Submit one task under an idempotency key, one made up when none is given; return its id."""
    answer = yield post("/v1/tasks", body, key or uuid.uuid4().hex)
    return str(answer.json()["id"])


def submit_many(parts: Sequence[Sequence[bytes]], key: str | None = None) -> list[Flow[list[str]]]:
    """Submit each part, which `batches` has made, as a batch, written whole or not at all; each returns its ids."""
    key = key or uuid.uuid4().hex
    return [_submit_batch(part, f"{key}:{number}") for number, part in enumerate(parts)]


def _submit_batch(part: Sequence[bytes], key: str) -> Flow[list[str]]:
    answer = yield post("/v1/tasks:batch", b'{"atomic":true,"tasks":[' + b",".join(part) + b"]}", key)
    found = msgspec.json.decode(answer.body, type=models.BatchAnswer)
    return [one.id for one in sorted(found.tasks, key=lambda one: one.index)]


def all_submitted(
    parts: Sequence[Sequence[bytes]], found: Sequence[list[str] | TaskFlowError | None], make: Callable[[str], H]
) -> list[H]:
    """Return a handle for each task. Raises what stopped the only batch or the first, else PartlySubmitted."""
    handles: list[H] = []
    missing: list[int] = []
    place = 0
    for part, ids in zip(parts, found, strict=True):
        if isinstance(ids, list):
            handles += map(make, ids)
        else:
            missing += range(place, place + len(part))
        place += len(part)
    stopped = next((one for one in found if isinstance(one, TaskFlowError)), None)
    if stopped is None:
        return handles
    if not handles:
        raise stopped
    message = f"{len(handles)} tasks were submitted, {len(missing)} were not: {stopped.message}"
    raise PartlySubmitted(message, handles=handles, missing=missing, fix=stopped.fix) from stopped


def batches(bodies: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Split tasks into batches that the server takes, in order."""
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        if batch and (len(batch) == MOST_BATCH_TASKS or size + len(body) > MOST_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += len(body) + 1
    if batch:
        yield batch


# ── one task ────────────────────────────────────────────────────────────────────────────────────────────


def get(task_id: str) -> Flow[models.TaskInfo]:
    """Return a task. Raises NotFound."""
    answer = yield Call(method="GET", path=_task(task_id))
    return msgspec.json.decode(answer.body, type=models.TaskInfo)


def outcome(
    task_id: str, timeout: float | None = None, monotonic: Callable[[], float] = clock.monotonic
) -> Flow[models.Outcome]:
    """Wait until a task has ended, for at most `timeout` seconds, None for ever. Raises ResultTimeout, NotFound."""
    start = monotonic()
    after = 0.0
    while True:
        asked_at = monotonic()
        left = POLL_SECONDS if timeout is None else max(timeout - (asked_at - start), 0.0)
        wait = min(left, POLL_SECONDS)
        answer = yield Call(
            method="GET", path=f"{_task(task_id)}/result", params={"wait": f"{wait:.3f}"}, slow=wait, after=after
        )
        found = msgspec.json.decode(answer.body, type=models.Outcome)
        if found.status in models.ENDED:
            return found
        if timeout is not None and monotonic() - start >= timeout:
            message = f"task {task_id} has not ended after {timeout:g} s: it is {found.status}"
            raise ResultTimeout(message, fix="it goes on; ask again, or cancel it")
        # A server that is about to stop answers early; do not ask it in a tight loop.
        after = _EARLY_SECONDS if monotonic() - asked_at - after < min(wait, _EARLY_SECONDS) else 0.0


def value_of(outcome: models.Outcome) -> Any:
    """Return the result of a task that ended. Raises TaskFailed, TaskQuarantined, TaskCancelled, TaskExpired."""
    name, error = f"task {outcome.id}", outcome.error or models.Failure()
    match outcome.status:
        case "COMPLETED":
            return outcome.result
        case "CANCELLED":
            raise TaskCancelled(f"{name} was cancelled", task_id=outcome.id)
        case "EXPIRED":
            raise TaskExpired(f"{name} expired before it was started", task_id=outcome.id)
        case status:
            kind = TaskQuarantined if status == "QUARANTINED" else TaskFailed
            says = ": ".join(part for part in (error.type, error.message) if part) or status
            raise kind(
                f"{name} failed: {says}",
                task_id=outcome.id,
                error_type=error.type or "",
                error_message=error.message or "",
                traceback=error.traceback or "",
            )


def cancel(task_id: str, *, force: bool = False, grace: float = 30.0) -> Flow[str]:
    """Ask a task to stop; `grace` seconds later, or at once when forced, it is stopped. Return its status."""
    body = {"mode": "force" if force else "graceful", "grace_seconds": grace}
    answer = yield command(f"{_task(task_id)}:cancel", body)
    return str((answer.json() or {}).get("status", "CANCELLING"))


def retry(task_id: str) -> Flow[models.TaskInfo]:
    """Let a task that ended without a result run again. Raises Conflict when it has one, or has not ended."""
    answer = yield Call(method="POST", path=f"{_task(task_id)}:retry", repeatable=False)
    return msgspec.json.decode(answer.body, type=models.TaskInfo)


def events(task_id: str) -> Flow[list[dict[str, Any]]]:
    """Return what happened to a task, oldest first."""
    return (yield from listed(f"{_task(task_id)}/events", "events"))


def attempts(task_id: str) -> Flow[list[dict[str, Any]]]:
    """Return the attempts of a task, oldest first."""
    return (yield from listed(f"{_task(task_id)}/attempts", "attempts"))


def logs(task_id: str, *, after: int = 0) -> Flow[list[dict[str, Any]]]:
    """Return what a task's attempts printed and logged, oldest first; only pieces whose `id` is above `after`."""
    found: list[dict[str, Any]] = []
    while True:
        page = yield from listed(f"{_task(task_id)}/logs", "logs", params={"after": str(after)})
        found += page
        if len(page) < MOST_LOGS:
            return found
        after = page[-1]["id"]


def tasks(
    *,
    status: str | Sequence[str] | None = None,
    queue: str | None = None,
    type: str | None = None,  # noqa: A002 - the API's name for it
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Flow[models.TaskPage]:
    """Return a page of tasks, newest first; several statuses are any of them."""
    said = {
        "status": [status] if isinstance(status, str) else list(status or ()),
        "queue": queue,
        "type": type,
        "created_after": created_after and created_after.isoformat(),
        "created_before": created_before and created_before.isoformat(),
        "limit": str(limit),
        "cursor": cursor,
    }
    answer = yield Call(method="GET", path="/v1/tasks", params={name: value for name, value in said.items() if value})
    return msgspec.json.decode(answer.body, type=models.TaskPage)


def _task(task_id: str) -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}"
