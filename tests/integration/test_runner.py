"""The child of a worker: whatever a handler does, one bounded Done comes back, or the process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from taskflow_queue import protocol as wire
from tests.kid import ROOT, Kid, alive
from tests.signals import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared() -> Iterator[Kid]:
    """One child for all tests that leave it alive: which they must."""
    with Kid() as kid:
        kid.ready()
        yield kid


def value(done: wire.Done) -> Any:
    assert (done.kind, done.result is not None) == ("returned", True), done
    return msgspec.json.decode(done.result or b"")


def test_a_child_announces_what_its_modules_define(shared: Kid) -> None:
    definitions = {definition.name: definition for definition in shared.ready().definitions}
    assert definitions["tests.handlers:noop"].is_async is False
    assert definitions["tests.handlers:anoop"].is_async is True
    assert definitions["tests.handlers:soft"].soft_timeout == 0.3


@pytest.mark.parametrize("lane", ["echo", "aecho"])
def test_a_value_comes_back_as_json(shared: Kid, lane: str) -> None:
    assert value(shared.done(shared.run(lane, value={"a": [1, 2.5, "ü", None]}))) == {"a": [1, 2.5, "ü", None]}


def test_a_handler_knows_its_task_and_attempt(shared: Kid) -> None:
    key = shared.run("who", attempt=7)
    said = value(shared.done(key))
    assert (said["id"], said["attempt"]) == (str(uuid.UUID(bytes=key[0])), 7)


def ends(kid: Kid, keys: list[tuple[bytes, int]]) -> list[tuple[str, int]]:
    """How attempts ended, and in what company."""
    return [(done.kind, done.company) for done in map(kid.done, keys)]


def test_a_cancel_that_nobody_asked_for_is_a_failure_of_a_task_that_is_alone(shared: Kid) -> None:
    done = shared.done(shared.run("acancel_all"))
    assert (done.kind, done.error_type) == ("raised", "asyncio.exceptions.CancelledError")


def test_tasks_that_were_cancelled_by_one_of_them_are_suspects_in_the_same_company(shared: Kid) -> None:
    keys = [shared.run("asleep", seconds=60) for _ in range(5)]
    keys.append(shared.run("acancel_all", seconds=0.2))
    assert ends(shared, keys) == [("suspect", 6)] * 6
    assert value(shared.done(shared.run("aecho", value=1))) == 1


def test_a_task_that_is_cancelled_before_its_first_step_is_given_back(shared: Kid) -> None:
    kinds = [("acancel_all", b"{}"), *[("asleep", b'{"seconds": 60}')] * 5]
    runs = [wire.Run(uuid.uuid4().bytes, 1, f"tests.handlers:{name}", said, None, None) for name, said in kinds]
    shared.send(*runs)
    keys = [(run.id, run.attempt) for run in runs]
    assert ends(shared, keys[:1]) == [("raised", 1)]
    if sys.version_info >= (3, 12):  # there, each takes its first step as soon as it is sent
        shared.send(*(wire.Cancel(*key) for key in keys[1:]))
        return
    assert ends(shared, keys[1:]) == [("released", 1)] * 5


@pytest.mark.parametrize("which", ["object", "nan", "nul", "surrogate", "huge", "set"])
def test_a_result_that_cannot_be_kept_is_rejected_with_a_sentence(shared: Kid, which: str) -> None:
    done = shared.done(shared.run("odd_result", which=which))
    assert (done.kind, done.result, done.fatal) == ("rejected", None, True)
    assert "the result" in done.message
    assert len(done.message) <= wire.MOST_MESSAGE


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        ("fail", "ValueError"),
        ("afail", "ValueError"),
        ("leave", "SystemExit"),
        ("aleave", "SystemExit"),
        ("interrupt", "KeyboardInterrupt"),
        ("rude", "tests.handlers.Rude"),
    ],
)
def test_whatever_is_raised_is_told_and_the_child_lives(shared: Kid, handler: str, error: str) -> None:
    done = shared.done(shared.run(handler))
    assert (done.kind, done.error_type, done.fatal) == ("raised", error, False)
    assert value(shared.done(shared.run("echo", value=1))) == 1


def test_the_traceback_shows_the_users_frames_only(shared: Kid) -> None:
    trace = shared.done(shared.run("fail")).traceback
    assert "raise ValueError(message)" in trace
    assert "runner" not in trace


@pytest.mark.parametrize("megabytes", [0, 50])
def test_odd_text_becomes_storable_and_short(shared: Kid, megabytes: int) -> None:
    done = shared.done(shared.run("odd_text", megabytes=megabytes))
    assert done.message.startswith("nul � surrogate � end")
    assert len(done.message) <= wire.MOST_MESSAGE + 100
    assert len(done.traceback) <= wire.MOST_TRACEBACK + 100


@pytest.mark.parametrize(("handler", "fatal"), [("give_up", True), ("not_retryable", True), ("fail", False)])
def test_give_up_on_and_retry_on_are_judged_where_the_classes_are_known(
    shared: Kid, handler: str, *, fatal: bool
) -> None:
    assert shared.done(shared.run(handler)).fatal is fatal


def test_retry_later_carries_its_seconds(shared: Kid) -> None:
    done = shared.done(shared.run("later", seconds=12.5))
    assert (done.kind, done.later, done.fatal) == ("later", 12.5, False)


@pytest.mark.parametrize("handler", ["spin", "sleep", "asleep"])
def test_a_hard_limit_interrupts_python_system_calls_and_coroutines(shared: Kid, handler: str) -> None:
    arguments = {} if handler == "spin" else {"seconds": 60}
    assert shared.done(shared.run(handler, timeout=0.2, **arguments), within=5).kind == "timed_out"


@pytest.mark.parametrize("handler", ["soft", "asoft"])
def test_a_soft_limit_lets_the_handler_tidy_up(shared: Kid, handler: str) -> None:
    assert value(shared.done(shared.run(handler, timeout=10, soft=0.2), within=5)) == "tidied"


def test_a_soft_limit_that_is_let_out_is_a_time_out(shared: Kid) -> None:
    done = shared.done(shared.run("asoft_out", timeout=10, soft=0.2), within=5)
    assert (done.kind, done.error_type) == ("timed_out", "taskflow_queue.errors.SoftTimeout")


def test_an_async_task_is_cancelled_when_asked(shared: Kid) -> None:
    key = shared.run("asleep", seconds=60)
    shared.send(wire.Cancel(*key))
    assert shared.done(key, within=5).kind == "cancelled"


def test_a_sync_task_is_asked_first_and_interrupted_by_sigterm(shared: Kid) -> None:
    polite = shared.run("heed_cancel")
    begun(shared, polite)
    shared.send(wire.Cancel(*polite))
    assert value(shared.done(polite, within=5)) == "stopped by itself"
    deaf = shared.run("sleep", seconds=60)
    begun(shared, deaf)
    shared.send(wire.Cancel(*deaf), wire.Ping(1))
    shared.until(lambda message: message == wire.Pong(1))
    os.kill(shared.pid, signal.SIGTERM)
    assert shared.done(deaf, within=5).kind == "cancelled"


def test_sigterm_spares_a_task_that_nobody_cancelled(shared: Kid) -> None:
    key = shared.run("steps", count=10, pause=0.05)
    begun(shared, key)
    os.kill(shared.pid, signal.SIGTERM)
    assert value(shared.done(key)) == "done"


def test_prints_and_log_records_belong_to_their_task(shared: Kid) -> None:
    one = shared.done(shared.run("loud"))
    assert one.logs.splitlines() == ["line 0", "line 1", "line 2", "INFO loud: through logging", "to stderr�"]
    keys = [shared.run("aloud", word=word) for word in "ab"]
    assert [shared.done(key).logs for key in keys] == ["a 0\na 1\na 2\n", "b 0\nb 1\nb 2\n"]


def test_logs_are_bounded(shared: Kid) -> None:
    key = shared.run("loud", lines=20_000)
    rest = shared.done(key).logs
    told = [message.text for message in shared.seen if isinstance(message, wire.Logs) and message.id == key[0]]
    logs = "".join([*told, rest])  # what takes longer than a quarter of a second is told in parts
    assert len(logs) < wire.MOST_LOGS + 200
    assert "cut here" in logs


def test_progress_is_told_while_the_task_runs_but_not_often(shared: Kid) -> None:
    began = time.monotonic()
    key = shared.run("steps", count=30, pause=0.02)
    shared.done(key)
    most = (time.monotonic() - began) / 0.25 + 2
    told = [message for message in shared.seen if isinstance(message, wire.Progress) and message.id == key[0]]
    assert 1 <= len(told) <= most
    assert told == sorted(told, key=lambda message: message.fraction)


@pytest.mark.parametrize("handler", ["run_program", "run_loop"])
def test_both_lanes_leave_asyncio_to_the_user(shared: Kid, handler: str) -> None:
    assert value(shared.done(shared.run(handler))) == "hello"


@pytest.mark.parametrize("handler", ["noop", "anoop", "fail", "afail", "soft", "asoft"])
def test_what_an_attempt_held_is_free_when_it_has_ended(handler: str) -> None:
    with Kid() as kid:
        kid.ready()
        assert value(kid.done(kid.run("living"))) == 1
        for key in [kid.run(handler, soft=0.05 if "soft" in handler else None, timeout=5) for _ in range(10)]:
            kid.done(key)
        assert value(kid.done(kid.run("living"))) <= 2  # the loop's own context keeps the one that began last


def test_a_stuck_coroutine_is_seen_by_a_ping_without_answer() -> None:
    with Kid() as kid:
        kid.ready()
        kid.send(wire.Ping(1))
        kid.until(lambda message: message == wire.Pong(1))
        kid.run("aspin", timeout=0.2)
        kid.send(wire.Ping(2))
        with pytest.raises(TimeoutError):
            kid.until(lambda message: message == wire.Pong(2), within=1.0)


@pytest.mark.parametrize("handler", ["die", "adie", "segfault", "asegfault"])
def test_a_death_is_seen_as_the_end_of_the_socket(handler: str) -> None:
    with Kid() as kid:
        kid.ready()
        key = kid.run(handler)
        with pytest.raises((EOFError, ConnectionResetError)):
            kid.done(key)


def test_a_module_that_cannot_be_imported_is_told_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken_module.py").write_text("import sys\nsys.exit('not today')\n")
    with Kid("broken_module", PYTHONPATH=f"{ROOT}:{tmp_path}") as kid:
        broken = kid.until(lambda message: isinstance(message, wire.Broken))
        assert "SystemExit: not today" in broken.message


def test_a_module_that_submits_while_it_is_imported_is_refused_with_a_sentence(tmp_path: Path) -> None:
    source = "from taskflow_queue import task\n@task\ndef one():\n    pass\none.submit()\n"
    (tmp_path / "submits.py").write_text(source)
    with Kid("submits", PYTHONPATH=f"{ROOT}:{tmp_path}") as kid:
        broken = kid.until(lambda message: isinstance(message, wire.Broken))
        assert "submits a task while it is imported" in broken.message


def test_a_child_ends_with_the_socket() -> None:
    with Kid() as kid:
        kid.ready()
        kid.run("ignore_cancel")
        kid.end.close()
        kid.wait()


def test_a_child_ends_with_its_supervisor(tmp_path: Path) -> None:
    """Killed with -9, the supervisor cannot say good-bye; here its sockets even stay open in another process."""
    script = (
        "import os, sys, time; sys.path.insert(0, {root!r})\n"
        "from tests.kid import Kid\n"
        "kid = Kid(); kid.ready(); kid.run('hold_gil', seconds=60)\n"
        "open({mark!r}, 'w').write(str(kid.pid))\n"
        "time.sleep(60)\n"
    )
    mark = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", script.format(root=str(ROOT), mark=str(mark))])
    until(lambda: mark.exists() and mark.read_text() != "", within=10)
    child = int(mark.read_text())
    parent.kill()
    parent.wait()
    until(lambda: not alive(child))


def test_a_child_stops_when_it_is_idle_and_told_to(shared: Kid) -> None:
    with Kid() as kid:
        kid.ready()
        key = kid.run("sleep", seconds=0.2)
        kid.send(wire.Stop())
        assert value(kid.done(key)) == 0.2
        assert kid.wait() == 0


def begun(kid: Kid, key: tuple[bytes, int]) -> None:
    kid.until(lambda message: isinstance(message, wire.Progress) and message.id == key[0])
