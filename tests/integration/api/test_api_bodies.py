"""Odd, huge and broken requests: a 4xx that names what is wrong, never a 5xx."""

from __future__ import annotations

import gzip
import itertools
import json
from typing import TYPE_CHECKING, Any

from services.api.edge import MOST_BODY
from services.api.schemas.tasks import MOST_PAYLOAD
from tests.unit.test_strict_json import BAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx2 import AsyncClient

JSON = {"content-type": "application/json"}
TASK = {"type": "a:b"}


# One database for a whole table of cases: each test reports all that go wrong.
async def test_the_corpus_as_payload(ada: AsyncClient) -> None:
    wrong = []
    for text, (code, field, _) in BAD.items():
        answer = await ada.post("/v1/tasks", content=b'{"type":"a:b","payload":' + text + b"}", headers=JSON)
        problem = answer.json()
        named = field is None or "deep" in problem["detail"] or str(problem["field"]).startswith("payload")
        refused = answer.status_code == (400 if problem["code"] == "invalid_json" else 422)
        if not (refused and problem["code"] in {code, "invalid_json"} and (code == "invalid_json" or named)):
            wrong.append((text[:30], answer.status_code, problem))
    assert wrong == []


FIELDS: dict[str, tuple[Any, str]] = {
    "no type": ({}, "type"),
    "empty type": ({"type": ""}, "type"),
    "type with a space": ({"type": "a b"}, "type"),
    "type with a line end": ({"type": "a\r\nX: y"}, "type"),
    "long type": ({"type": "x" * 201}, "type"),
    "type is no text": ({"type": 5}, "type"),
    "queue with a slash": ({**TASK, "queue": "../../x"}, "queue"),
    "queue of markup": ({**TASK, "queue": "<img src=x>"}, "queue"),
    "queue null": ({**TASK, "queue": None}, "queue"),
    "long queue": ({**TASK, "queue": "q" * 64}, "queue"),
    "odd priority": ({**TASK, "priority": "URGENT"}, "priority"),
    "priority as number": ({**TASK, "priority": 1}, "priority"),
    "long title": ({**TASK, "title": "x" * 201}, "title"),
    "title with a control character": ({**TASK, "title": "a\x1bb"}, "title"),
    "time without zone": ({**TASK, "scheduled_at": "2030-01-01T00:00:00"}, "scheduled_at"),
    "time as number": ({**TASK, "scheduled_at": 1900000000}, "scheduled_at"),
    "time as digits": ({**TASK, "scheduled_at": "1900000000"}, "scheduled_at"),
    "no such day": ({**TASK, "scheduled_at": "2030-02-30T00:00:00Z"}, "scheduled_at"),
    "before all time": ({**TASK, "expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at"),
    "after all time": ({**TASK, "expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at"),
    "timeout 0": ({**TASK, "timeout_seconds": 0}, "timeout_seconds"),
    "timeout negative": ({**TASK, "timeout_seconds": -1}, "timeout_seconds"),
    "timeout as text": ({**TASK, "timeout_seconds": "5"}, "timeout_seconds"),
    "timeout of an age": ({**TASK, "timeout_seconds": 1e300}, "timeout_seconds"),
    "timeout too long for a float": ({**TASK, "timeout_seconds": 10**63}, "timeout_seconds"),
    "attempts 0": ({**TASK, "max_attempts": 0}, "max_attempts"),
    "attempts true": ({**TASK, "max_attempts": True}, "max_attempts"),
    "attempts 1.5": ({**TASK, "max_attempts": 1.5}, "max_attempts"),
    "many attempts": ({**TASK, "max_attempts": 2**63}, "max_attempts"),
    "long key": ({**TASK, "concurrency_key": "k" * 201}, "concurrency_key"),
    "unknown field": ({**TASK, "owner_id": 1}, "owner_id"),
    "field with odd letters": ({**TASK, "a\u202eb": 1}, "a\u202eb"),
    "large payload": ({**TASK, "payload": "x" * (MOST_PAYLOAD - 1)}, "payload"),
    "large payload in few letters": ({**TASK, "payload": "\u20ac" * (MOST_PAYLOAD // 3)}, "payload"),
    "not an object": ([TASK], ""),
    "text": ("a:b", ""),
    "null": (None, ""),
}


async def test_a_wrong_field_is_named(ada: AsyncClient) -> None:
    told = {}
    for case, (body, _) in FIELDS.items():
        answer = await ada.post("/v1/tasks", content=json.dumps(body, ensure_ascii=False).encode(), headers=JSON)
        told[case] = (answer.status_code, answer.json()["field"] or "")
    assert told == {case: (422, field) for case, (_, field) in FIELDS.items()}


async def test_the_order_of_times_matters(ada: AsyncClient) -> None:
    body = {**TASK, "scheduled_at": "2031-01-01T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"}
    answer = await ada.post("/v1/tasks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "expires_at" in answer.json()["detail"]


GOOD: dict[str, Any] = {
    "a type of another tongue": {"type": "mødul:größe.<locals>.f"},
    "a type that looks like code is only a name": {"type": "os.system"},
    "a path": {"type": "../../x"},
    "everything": {
        **TASK, "payload": [None, "\u2028", 1e-7, 10**63, {"": {}}], "queue": "a.b-C_9", "priority": "LOW",
        "title": "<img src=x onerror=alert(1)>", "scheduled_at": "2030-01-01T00:00:00.5+05:30",
        "expires_at": "2030-01-02T00:00:00z", "timeout_seconds": 1, "max_attempts": 1000, "concurrency_key": "ключ",
    },
    "nulls": {**TASK, "payload": None, "title": None, "concurrency_key": None, "max_attempts": None},
    "the largest payload": {**TASK, "payload": "x" * (MOST_PAYLOAD - 2)},
}  # fmt: skip


async def test_what_is_odd_but_right_is_kept_as_it_came(ada: AsyncClient) -> None:
    for body in GOOD.values():
        answer = await ada.post("/v1/tasks", content=json.dumps(body, ensure_ascii=False).encode(), headers=JSON)
        assert answer.status_code == 201, answer.text
        read = (await ada.get(answer.headers["location"])).json()
        assert {**read, "waiting": None} == answer.json()
        for name in body.keys() - {"scheduled_at", "expires_at"}:
            assert read[name] == body[name]


UNREAD: list[tuple[dict[str, str], bytes, int, str]] = [
    ({**JSON, "content-encoding": "gzip"}, gzip.compress(json.dumps(TASK).encode()), 415, "unsupported_media_type"),
    ({**JSON, "content-encoding": "br"}, b"x", 415, "unsupported_media_type"),
    ({"content-type": "text/plain"}, json.dumps(TASK).encode(), 415, "unsupported_media_type"),
    ({"content-type": "application/x-www-form-urlencoded"}, b"type=a:b", 415, "unsupported_media_type"),
    ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 415, "unsupported_media_type"),
    (JSON, b"x" * (MOST_BODY + 1), 413, "too_large"),
    ({**JSON, "x-big": "x" * 17_000}, json.dumps(TASK).encode(), 431, "headers_too_large"),
    ({**JSON, "x-request-id": "\u00fc" * 99}, b"{}", 422, "invalid"),
]


async def test_requests_that_are_not_read(ada: AsyncClient) -> None:
    for headers, content, status, code in UNREAD:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await ada.post("/v1/tasks", content=content, headers=raw)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.json()["request_id"].isascii()


async def test_a_body_without_a_length_is_counted_as_it_comes(ada: AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 64 * 1024
            yield b"[" * 64 * 1024

    answer = await ada.post("/v1/tasks", content=endless(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_batch_has_bounds(ada: AsyncClient) -> None:
    for tasks, field in (([], "tasks"), ([TASK] * 1001, "tasks"), ("x", "tasks")):
        answer = await ada.post("/v1/tasks:batch", json={"tasks": tasks})
        assert (answer.status_code, answer.json()["field"]) == (422, field)
    twice = b'{"tasks":[{"type":"a:b"},{"type":"a:b","payload":{"k":1,"k":2}}]}'
    answer = await ada.post("/v1/tasks:batch", content=twice, headers=JSON)
    assert (answer.status_code, answer.json()["field"]) == (422, "tasks[1].payload.k")


FILTERS: list[tuple[str, str]] = [
        ("limit=0", "limit"), ("limit=201", "limit"), ("limit=1000000000", "limit"), ("limit=x", "limit"),
        ("status=DONE", "status[0]"), ("cursor=x", "cursor"), ("cursor=%00", "cursor"), ("queue=%00", "queue"),
        ("created_after=yesterday", "created_after"), ("created_after=9", "created_after"),
        ("cursor=" + "A" * 300, "cursor"),
        ("sort=(select+pg_sleep(5))", "sort"), ("owner_id=1", "owner_id"), ("type=" + "x" * 201, "type"),
]  # fmt: skip


async def test_a_wrong_filter_is_named(ada: AsyncClient) -> None:
    told = []
    for query, _ in FILTERS:
        answer = await ada.get(f"/v1/tasks?{query}")
        told.append((query, answer.status_code, answer.json()["field"]))
    assert told == [(query, 422, field) for query, field in FILTERS]


HOSTILE = ["' or 1=1 --", "%' union select 1", "\\", "$1", '"', "%25", "_", "{}", "ü", "\u202e", "(select pg_sleep(5))"]


async def test_a_filter_is_only_a_value(ada: AsyncClient) -> None:
    await ada.post("/v1/tasks", json=TASK)
    for name, value in itertools.product(("queue", "type"), HOSTILE):
        answer = await ada.get("/v1/tasks", params={name: value})
        assert (answer.status_code, answer.json()["tasks"]) == (200, [])


PATHS: list[tuple[str, int]] = [
        ("/v1/tasks/1", 422), ("/v1/tasks/%00", 422), ("/v1/tasks/x/result", 422), ("/v1/tasks/" + "a" * 3000, 422),
        ("/v1/tasks/01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11/result?wait=61", 422),
        ("/v1/tasks/01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11/result?wait=nan", 422),
        ("/v1/tasks/01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11/result?wait=inf", 422),
        ("/v1/tasks/01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11/logs?after=9223372036854775808", 422),
        ("/v1/tasks/", 404), ("/v1//tasks", 404), ("/v1/tasks/../../etc/passwd", 404), ("/docs", 404), ("/redoc", 404),
        ("/v1/auth/token", 405),
]  # fmt: skip


async def test_odd_paths(ada: AsyncClient) -> None:
    told = []
    for path, _ in PATHS:
        answer = await ada.get(path)
        told.append((path, answer.status_code, answer.headers["content-type"]))
    assert told == [(path, status, "application/problem+json") for path, status in PATHS]


async def test_unknown_methods_are_405(ada: AsyncClient) -> None:
    for method in ["TRACE", "PATCH", "PUT", "DELETE", "OPTIONS", "BREW"]:
        answer = await ada.request(method, "/v1/tasks", headers={"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


async def test_caps_have_bounds(root: AsyncClient) -> None:
    for body in [
        {"max_concurrent": -1, "max_per_key": 1},
        {"max_concurrent": 2**31, "max_per_key": 1},
        {"max_concurrent": 1},
        {},
    ]:
        assert (await root.put("/v1/queues/default/limits", json=body)).status_code == 422


async def test_cancel_is_strict_too(ada: AsyncClient) -> None:
    task = (await ada.post("/v1/tasks", json=TASK)).json()["id"]
    for body in [{"mode": "soft"}, {"grace_seconds": -1}, {"grace_seconds": 1e9}, {"x": 1}]:
        assert (await ada.post(f"/v1/tasks/{task}:cancel", json=body)).status_code == 422
    assert (await ada.post(f"/v1/tasks/{task}:cancel", content=b"")).status_code == 200
