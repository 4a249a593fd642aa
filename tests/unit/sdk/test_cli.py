"""The command: what it prints for people and for programs, and its exit codes. The server is the one in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from typer.testing import CliRunner

from taskflow_queue import Client, clock, current, task
from taskflow_queue.cli import app, asking, output, server, submitting, watching
from taskflow_queue.http import Http
from taskflow_queue.models import Progress
from taskflow_queue.settings import Settings
from taskflow_queue.testing import EagerQueue, eager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

TYPE = "cli:work"


@task(name=TYPE, max_attempts=1)
def work(path: str = "", *, fail: bool = False) -> dict[str, Any]:
    current().log("working on", path)
    if fail:
        raise ValueError("no good")
    return {"path": path}


def run(*arguments: str, input: str | None = None) -> Result:  # noqa: A002
    return CliRunner().invoke(app, arguments, input=input)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[EagerQueue]:
    with eager() as queue:
        monkeypatch.setattr(asking, "Client", lambda patience: Client(patience=patience, transport=queue))
        monkeypatch.setattr(clock, "pause", lambda _: None)
        yield queue


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[httpx2.Request]]:
    def answer(status: int, body: Any) -> list[httpx2.Request]:
        asked: list[httpx2.Request] = []

        def one(request: httpx2.Request) -> httpx2.Response:
            asked.append(request)
            return httpx2.Response(status, json=body)

        transport = Http(Settings("http://server", "key", "test"), options={"transport": httpx2.MockTransport(one)})
        monkeypatch.setattr(asking, "Client", lambda **_: Client(patience=0, transport=transport))
        return asked

    return answer


def test_submit_prints_the_id_and_takes_arguments_and_payloads(queue: EagerQueue) -> None:
    done = run("task", "submit", TYPE, "path=README.md", "fail=false", "--priority", "high", "-q", "text")
    assert (done.exit_code, done.stdout.strip()) == (0, queue.tasks[0].id)
    assert json.loads(queue.tasks[0].payload) == {"path": "README.md", "fail": False}
    assert (queue.tasks[0].priority, queue.tasks[0].queue) == ("HIGH", "text")

    done = run("task", "submit", TYPE, "--payload", '{"path": "a"}', "-o", "json")
    assert json.loads(done.stdout) == {"id": queue.tasks[1].id}
    run("task", "submit", TYPE, "-p", "-", input='{"path": "b"}')
    assert json.loads(queue.tasks[2].payload) == {"path": "b"}
    run("task", "submit", TYPE, "--delay", "2h", "--expires-in", "3h")
    assert queue.tasks[3].due - queue.tasks[3].created_at == timedelta(hours=2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["task", "submit", TYPE, "path"],
        ["task", "submit", TYPE, "path=1", "--payload", "{}"],
        ["task", "submit", TYPE, "--payload", "{"],
        ["task", "submit", TYPE, "--payload", "@/nowhere"],
        ["task", "submit", TYPE, "--delay", "soon"],
        ["task", "submit", TYPE, "--priority", "urgent"],
        ["task", "submit"],
        ["task", "bogus"],
        ["task", "list", "--limit", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(queue: EagerQueue, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2
    assert queue.tasks == []


def test_list_and_get(queue: EagerQueue) -> None:
    work.submit("a")
    handle = work.options(title="the second").submit("b", fail=True)
    shown = run("task", "list")
    assert shown.exit_code == 0
    assert [name in shown.stdout for name in ("ID", TYPE, "COMPLETED", "FAILED")] == [True] * 4
    listed = json.loads(run("task", "list", "-o", "json").stdout)
    assert [one["id"] for one in listed["tasks"]] == [one.id for one in reversed(queue.tasks)]
    shown = run("task", "get", "@latest")
    assert handle.id in shown.stdout
    assert "the second" in shown.stdout
    assert "ValueError: no good" in shown.stdout
    assert json.loads(run("task", "get", handle.id, "-o", "json").stdout)["error"]["message"] == "no good"


def test_result_and_wait_say_how_it_ended_by_their_exit_code(queue: EagerQueue) -> None:
    good = work.submit("a")
    assert json.loads(run("task", "result", good.id).stdout) == {"path": "a"}
    assert run("task", "wait", good.id).exit_code == 0
    bad = work.submit("a", fail=True)
    failed = run("task", "result", bad.id)
    assert failed.exit_code == 1
    assert "no good" in failed.stderr
    waited = run("task", "wait", bad.id, "-o", "json")
    assert (waited.exit_code, json.loads(waited.stdout)["status"]) == (1, "FAILED")
    late = work.options(delay=3600).submit()
    assert run("task", "result", late.id).exit_code == 5
    assert run("task", "wait", late.id, "--timeout", "10").exit_code == 5
    assert run("task", "get", "nothing").exit_code == 4


def test_watch_follows_to_the_end(queue: EagerQueue) -> None:
    handle = work.submit("a")
    shown = run("task", "watch", "@latest")
    assert shown.exit_code == 0
    assert "working on a" in shown.stdout
    assert '"path": "a"' in shown.stdout
    lines = [json.loads(line) for line in run("task", "watch", handle.id, "-o", "json").stdout.splitlines()]
    assert lines == [
        {"log": "working on a"},
        {"status": "COMPLETED", "attempt": 1},
        {"result": {"path": "a"}, "error": None, "status": "COMPLETED"},
    ]
    failed = run("task", "submit", TYPE, "fail=true", "--watch")
    assert failed.exit_code == 1
    assert "ValueError: no good" in failed.stdout


def test_cancel_retry_and_logs(queue: EagerQueue) -> None:
    late = work.options(delay=3600).submit("x")
    assert "CANCELLED" in run("task", "cancel", late.id).stdout
    assert run("task", "cancel", work.submit("y").id).exit_code == 7
    assert "COMPLETED" in run("task", "retry", late.id).stdout
    assert run("task", "logs", late.id).stdout == "working on x\n"


def test_latest_of_nothing_is_not_found(queue: EagerQueue) -> None:
    assert run("task", "get", "@latest").exit_code == 4


@pytest.mark.parametrize(("status", "code"), [(401, 6), (403, 6), (404, 4), (409, 7), (422, 2), (429, 3), (503, 3)])
def test_a_refusal_is_told_in_words_and_by_the_exit_code(answering: Callable[..., Any], status: int, code: int) -> None:
    answering(status, {"code": "some_code", "detail": "it cannot be", "fix": "do this"})
    refused = run("queue", "ls")
    assert refused.exit_code == code
    assert "it cannot be [some_code]" in refused.stderr
    assert "fix: do this" in refused.stderr
    assert refused.stdout == ""


def test_queues_workers_and_keys(answering: Callable[..., list[httpx2.Request]]) -> None:
    depth = {"pending": 1, "queued": 12345, "running": 3, "failed": 0}
    answering(200, {"queues": [{"name": "text", "paused": True, "depth": depth, "oldest_queued_seconds": 75.0}]})
    shown = run("queue", "ls").stdout
    assert all(word in shown for word in ("text", "paused", "12,345", "75s"))
    asked = answering(200, {"queues": [{"name": "text", "max_concurrent": 2, "max_per_key": 1}]})
    assert run("queue", "pause", "text").exit_code == 0
    assert run("queue", "limit", "text", "--max-concurrent", "5").exit_code == 0
    assert [request.url.path for request in asked] == ["/v1/queues/text:pause", "/v1/queues", "/v1/queues/text/limits"]
    assert json.loads(asked[2].content) == {"max_concurrent": 5, "max_per_key": 1}
    answering(
        200,
        {
            "workers": [
                {"id": "1", "name": "w", "state": "alive", "queues": ["a"], "slots": {"sync": 4}, "free": {"sync": 3}}
            ]
        },
    )
    assert "3/4 sync" in run("worker", "ls").stdout
    answering(201, {"id": 7, "key": "tf_secret", "prefix": "p"})
    made = run("key", "create", "ci", "--expires-in", "7d")
    assert made.stdout == "tf_secret\n"


def test_without_a_server_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(clock, "pause", lambda _: None)
    monkeypatch.setattr(asking, "Client", lambda **_: Client(patience=0))
    told = run("task", "list")
    assert told.exit_code == 3
    assert "taskflow dev" in told.stderr


def test_worker_takes_modules_where_it_takes_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[tuple[str, dict[str, str]]] = []

    def note(module: str, _: list[str], *, environment: dict[str, str]) -> int:
        started.append((module, environment))
        return 0

    monkeypatch.setattr(server, "run", note)
    monkeypatch.chdir(tmp_path)
    assert (
        run("worker", "app.tasks", "more", "--queue", "a", "-q", "b", "--children", "2", "--slots", "5").exit_code == 0
    )
    assert run("worker", "-q", "a", "app.tasks").exit_code == 0
    module, environment = started[0]
    assert module == "services.worker.main"
    assert environment["TASKFLOW_WORKER_MODULES"] == "app.tasks,more"
    assert environment["TASKFLOW_WORKER_QUEUES"] == "a,b"
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert started[1][1]["TASKFLOW_WORKER_QUEUES"] == "a"


@pytest.mark.parametrize("command", [["dev"], ["doctor"], ["verify"], ["worker", "app"]])
def test_without_the_server_installed_it_names_the_package(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr(server, "SERVER", "taskflow-server-that-is-not-there")
    told = run(*command)
    assert told.exit_code == 2
    assert "pip install 'taskflow-server-that-is-not-there[" in told.stderr


def test_the_sdk_imports_nothing_of_the_server_and_no_http_until_it_is_needed() -> None:
    code = (
        "import sys, taskflow_queue, taskflow_queue.testing\nprint(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"core", "services", "httpx2", "typer", "rich"} & set(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a", "a"), ("3", 3), ('"3"', "3"), ("true", True), ("[1]", [1]), ("01", "01"), ("", ""), ("null", None)],
)
def test_a_value_is_json_when_it_reads_as_json(text: str, value: Any) -> None:
    assert asking.value(text) == value


def test_small_words() -> None:
    assert asking.seconds("1.5h") == 5400
    assert [output.seconds_as_words(one) for one in (None, 3, 200, 9000, 10**6)] == ["-", "3s", "3m", "2h", "12d"]
    assert watching.progress_as_words(Progress(fraction=0.5, note="half")).endswith("50% half")
    assert submitting._payload(None, ["a=b=c"]) == {"a": "b=c"}
    lines: list[str] = []
    printer = watching.LogPrinter(lines.append)
    printer.show([{"id": 1, "text": "a\n"}])
    printer.show([{"id": 2, "text": "b"}, {"id": 3, "text": "c\n"}])
    assert (lines, printer.last) == (["a", "bc"], 3)
