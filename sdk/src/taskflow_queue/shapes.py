"""The few shapes that calls have, and what a flow of them is."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import msgspec

from taskflow_queue.wire import Answer, Call

R = TypeVar("R")
Flow = Generator[Call, Answer, R]
"""A verb: it yields calls, is sent their answers, and returns R. What the server refuses is raised in it."""


def post(path: str, body: bytes, key: str) -> Call:
    """Return a keyed submission."""
    headers = {"content-type": "application/json", "idempotency-key": key}
    return Call(method="POST", path=path, body=body, headers=headers)


def command(
    path: str,
    body: dict[str, Any] | None = None,
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    repeatable: bool = True,
) -> Call:
    """Return a call whose body, if any, is JSON."""
    encoded = None if body is None else msgspec.json.encode(body)
    kind = {} if body is None else {"content-type": "application/json"}
    return Call(method=method, path=path, body=encoded, headers=kind | (headers or {}), repeatable=repeatable)


def listed(path: str, *names: str, params: dict[str, Any] | None = None) -> Flow[list[dict[str, Any]]]:
    """Return the list that an answer holds under one of these names."""
    answer = yield Call(method="GET", path=path, params=params or {})
    found = answer.json() or {}
    return list(next((found[name] for name in names if name in found), []))
