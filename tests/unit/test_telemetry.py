from __future__ import annotations

import json
import logging
import uuid
from typing import TYPE_CHECKING

import pytest

from core import errors, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_what_was_bound(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("worker")
    task = uuid.uuid4()
    with telemetry.bound(task_id=task, attempt=2):
        telemetry.get_logger("test").info("started", slots=3)
    telemetry.get_logger("test").info("idle")
    first, second = lines(capsys)
    assert {"event": "started", "service": "worker", "task_id": str(task), "attempt": 2, "slots": 3}.items() <= (
        first.items()
    )
    assert "task_id" not in second


def test_secrets_are_not_logged_and_libraries_are(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("api")
    telemetry.get_logger("test").info("login", password="hunter2", token="x.y.z")
    logging.getLogger("alembic").info("upgrade %s", "0001")
    logging.getLogger("uvicorn.access").info("GET / 200")
    first, second = lines(capsys)
    assert (first["password"], first["token"]) == ("[redacted]", "[redacted]")
    assert second["event"] == "upgrade 0001"


def test_what_json_cannot_hold_still_comes_out(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("worker")
    telemetry.get_logger("test").warning("odd", text="\ud800", thing=object(), error=ValueError("no"))
    (line,) = lines(capsys)
    assert "ValueError" in str(line["error"])


def test_metrics_are_made_once_and_exposed() -> None:
    telemetry.metrics().fenced_writes_total.labels(verb="finish").inc()
    assert telemetry.metrics() is telemetry.metrics()
    body, content_type = telemetry.exposed()
    assert b'taskflow_fenced_writes_total{verb="finish"}' in body
    assert content_type.startswith("text/plain")


def test_a_metrics_port_that_is_taken_is_named() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(errors.SettingError, match="TASKFLOW_METRICS_PORT"):
            telemetry.serve_metrics(taken.getsockname()[1], host="127.0.0.1")


def test_port_zero_serves_nothing() -> None:
    telemetry.serve_metrics(0)()
