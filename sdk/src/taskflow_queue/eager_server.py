"""The REST API of the queue in memory: as much of it as handles and tasks use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from taskflow_queue import models
from taskflow_queue.wire import Answer, Call

if TYPE_CHECKING:
    from taskflow_queue.eager_task import EagerTask
    from taskflow_queue.testing import EagerQueue


class _Body(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


def answer(queue: EagerQueue, call: Call) -> Answer:
    """Answer one call."""
    path = call.path.removeprefix("/v1/tasks")
    if path == call.path:
        return _problem(404, "not_in_memory", f"the queue in memory has no {call.path}")
    match call.method, path:
        case "POST", "" | ":batch":
            return _submit(queue, call, batch=path == ":batch")
        case "GET", "":
            return _json(200, models.TaskPage(tasks=[_info(queue, one) for one in reversed(queue.tasks)]))
    name, verb = _split(path.removeprefix("/"))
    row = queue.find(unquote(name))
    if row is None:
        return _problem(404, "not_found", f"there is no task {name!r} in memory")
    return _one(queue, call, row, verb)


def _split(path: str) -> tuple[str, str]:
    for mark in ("/", ":"):
        if mark in path:
            name, _, verb = path.partition(mark)
            return name, mark + verb
    return path, ""


def _one(queue: EagerQueue, call: Call, row: EagerTask, verb: str) -> Answer:
    match verb:
        case "":
            return _json(200, _info(queue, row))
        case "/result":
            return _result(queue, row, float(call.params.get("wait", 0)))
        case "/attempts":
            return _json(200, {"attempts": row.attempts})
        case "/events":
            return _json(200, {"events": []})
        case "/logs":
            return _json(200, {"logs": _logs(row, int(call.params.get("after", 0)))})
        case ":cancel" | ":retry":
            return _moved(queue, row, verb)
        case _:
            return _problem(404, "not_in_memory", f"the queue in memory has no {call.path}")


def _logs(row: EagerTask, after: int) -> list[dict[str, Any]]:
    return [{"id": one.number, "attempt": one.number, "text": one.logs} for one in row.attempts[after:] if one.logs]


def _moved(queue: EagerQueue, row: EagerTask, verb: str) -> Answer:
    again = verb == ":cancel" and row.status in {"CANCELLED", "CANCELLING"}
    if not again and not row.move("cancel" if verb == ":cancel" else "redrive"):
        return _problem(409, "illegal_move", f"task {row.id} is {row.status}")
    if verb == ":retry":
        row.retry_count, row.due = 0, queue.now()
        queue.settle(row)
        return _json(200, _info(queue, row))
    if row.context is not None:
        row.context.cancel_wanted = True
    return _json(200 if row.ended else 202, {"id": row.id, "status": row.status})


def _submit(queue: EagerQueue, call: Call, *, batch: bool) -> Answer:
    key = call.headers.get("idempotency-key", "")
    found = [row for one in queue.keys.get(key, []) if (row := queue.find(one)) is not None]
    if not found:
        bodies = msgspec.json.decode(call.body or b"")["tasks"] if batch else [msgspec.json.decode(call.body or b"")]
        raw = msgspec.json.decode(call.body or b"", type=_Batch).tasks if batch else [_payload(call.body or b"")]
        found = [queue.add(body, bytes(one.payload)) for body, one in zip(bodies, raw, strict=True)]
        queue.keys[key] = [row.id for row in found]
        for row in found:
            queue.settle(row)
    if not batch:
        return _json(201, _info(queue, found[0]))
    members = [models.Batched(index=index, id=row.id, status=row.status) for index, row in enumerate(found)]
    return _json(201, models.BatchAnswer(tasks=members))


class _Batch(msgspec.Struct):
    tasks: list[_Body]


def _payload(body: bytes) -> _Body:
    return msgspec.json.decode(body, type=_Body)


def _result(queue: EagerQueue, row: EagerTask, wait: float) -> Answer:
    if not row.ended and wait > 0 and not queue.wait_for(row, wait):
        info = _info(queue, row)
        why = info.waiting.detail if info.waiting else f"it is {row.status}, and nothing is left to run"
        return _problem(409, "never_ends", f"task {row.id} will not end by itself: {why}")
    result = None if row.result is None or row.status != "COMPLETED" else msgspec.json.decode(row.result)
    body = models.Outcome(id=row.id, status=row.status, result=result, error=row.error)
    return _json(200 if row.ended else 202, body)


def _info(queue: EagerQueue, row: EagerTask) -> models.TaskInfo:
    return row.info(queue.now(), queue.known(row))


def _json(status: int, body: Any) -> Answer:
    return Answer(status, msgspec.json.encode(body))


def _problem(status: int, code: str, detail: str) -> Answer:
    return _json(status, {"status": status, "code": code, "detail": detail})
