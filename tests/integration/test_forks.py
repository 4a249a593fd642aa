"""The fork server: what its children share, what they do not, and what becomes of them without it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.worker.forked import UNKNOWN, Forked
from taskflow_queue import protocol as wire
from tests.kid import ROOT, Kid, adopting, alive, ask, fork_server
from tests.lookout import happens
from tests.signals import until
from tests.working import WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.worker.forks import ForkServer

FAILING = """
import os
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = fork
"""
DYING = """
import os
os.write = lambda *_: os.kill(os.getpid(), 9)
"""
THREADED = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
RUBBISH = """
import os, pathlib
for link in pathlib.Path("/proc/self/fd").iterdir():
    if link.is_symlink() and str(link.readlink()).startswith("socket:"):
        os.write(int(link.name), bytes([255]) * 64)
import time
time.sleep(600)
"""
IGNORE = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
IGNORING = """
from tests.kid import Kid
with Kid() as kid:
    kid.ready()
    kid.end.close()
    print("ended with", kid.wait())
"""
CLOSE_ON_EXEC = 0o2000000


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with closing(fork_server()) as server:
        yield server


def told(kid: Kid) -> dict[str, Any]:
    """What a child says of itself."""
    kid.ready()
    said: dict[str, Any] = json.loads(kid.done(kid.run("facts")).result or b"{}")
    return said


def inherited(pid: int) -> list[str]:
    """What a process hands on to programs that it executes, but for the three that everybody has."""
    found = []
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        flags = next(line.split()[1] for line in file.read_text().splitlines() if line.startswith("flags:"))
        if int(file.name) > 2 and not int(flags, 8) & CLOSE_ON_EXEC:
            found.append(str(Path(f"/proc/{pid}/fd/{file.name}").readlink()))
    return found


def asked(server: ForkServer) -> bytes:
    """All that comes from a child of which nobody else knows."""
    ours, theirs = socket.socketpair()
    with ours, adopting():
        ask(server, theirs)
        ours.settimeout(20)
        said = b""
        with suppress(ConnectionResetError, BrokenPipeError):  # it may be closed before anything was said
            ours.sendall(wire.encode([wire.Hello(wire.VERSION, ["tests.handlers"], 1)]))
            while data := ours.recv(1 << 16):
                said += data
        return said


def sockets(pid: int) -> set[str]:
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {link for link in links if link.startswith("socket:")}


def test_children_are_ours_and_share_no_more_than_code(server: ForkServer) -> None:
    with Kid(server=server) as one, Kid(server=server) as other:
        first, second = told(one), told(other)
        assert (first["parent"], second["parent"]) == (os.getpid(), os.getpid())
        assert first["session"]
        assert second["session"]
        assert first["random"] != second["random"]
        assert not [name for name in first["environment"] if name.startswith("TASKFLOW")]
        assert sockets(server.pid)
        assert not sockets(server.pid) & sockets(one.pid)
        assert not inherited(one.pid), "a program that a task starts would have it"
        assert Path(f"/proc/{one.pid}/comm").read_text() == "taskflow-child\n"
        assert Path(f"/proc/{server.pid}/comm").read_text() == "taskflow-forks\n"


def test_what_a_child_imports_is_its_own(server: ForkServer) -> None:
    with Kid("tests.no_such_module", server=server) as broken:
        assert "no_such_module" in broken.until(lambda message: isinstance(message, wire.Broken)).message
        assert broken.wait() == 1
    with Kid(server=server) as kid:
        assert told(kid)


def test_children_outlive_their_server_and_another_takes_its_place(server: ForkServer) -> None:
    with Kid(server=server) as kid:
        kid.ready()
        first = server.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: not alive(first))
        assert told(kid)
        with Kid(server=server) as later:
            assert told(later)
        assert server.pid != first


def test_a_fork_that_fails_closes_the_socket(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    with closing(fork_server(PYTHONPATH=f"{tmp_path}:{ROOT}")) as server:
        assert asked(server) == asked(server) == b"", "and the server goes on"
    assert "cannot fork a child: [Errno 11]" in capfd.readouterr().err


def test_a_child_that_could_not_be_announced_ends(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(DYING)
    with closing(fork_server(PYTHONPATH=f"{tmp_path}:{ROOT}")) as server:
        assert asked(server) == b""


def test_threads_that_forks_will_lack_are_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(THREADED)
    with Kid(PYTHONPATH=f"{tmp_path}:{ROOT}") as kid:
        assert told(kid)
    assert "has started a thread" in capfd.readouterr().err


def test_whoever_ignores_the_deaths_of_children_does_not_hide_these() -> None:
    command = [sys.executable, "-c", IGNORE, IGNORING]
    assert "ended with 0\n" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_module_that_speaks_out_of_turn_ends_its_child(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "rubbish.py").write_text(RUBBISH)
    settings = {"TASKFLOW_WORKER_MODULES": "rubbish", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with WorkerProcess({"DATABASE_URL": database_url}, **settings) as worker:
        assert worker.process.wait(20) == 1
        assert any("before it was ready" in line for line in worker.lines)


async def test_a_process_that_somebody_else_has_waited_for_ends_all_the_same() -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    ended = asyncio.get_running_loop().create_future()
    Forked(gone.pid, ended.set_result)
    assert await ended == UNKNOWN


@pytest.mark.slow
async def test_a_worker_that_can_start_nothing_tries_again(database_url: str, tmp_path: Path) -> None:
    python, away = tmp_path / "python", tmp_path / "away"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    settings = {"TASKFLOW_WORKER_CHILDREN": "1", "TASKFLOW_WORKER_PYTHON": str(python)}
    async with house(database_url) as home:
        with WorkerProcess({"DATABASE_URL": database_url}, **settings) as worker:
            worker.ready()
            python.rename(away)
            for pid in worker.called("taskflow-forks") + worker.called("taskflow-child"):
                os.kill(pid, signal.SIGKILL)
            until(lambda: any("no child can be started" in line for line in worker.lines))
            away.rename(python)
            rows = await home.ended(await home.submit("noop", 3))
            assert {row["status"] for row in rows} == {"COMPLETED"}


async def test_a_worker_without_its_fork_server_makes_children_again(database_url: str) -> None:
    async with house(database_url) as home:
        with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_CHILDREN="1") as worker:
            worker.ready()
            [first], [child] = worker.called("taskflow-forks"), worker.called("taskflow-child")
            os.kill(first, signal.SIGKILL)
            until(lambda: not alive(first))
            rows = await home.ended(await home.submit("noop", 3))
            assert {row["status"] for row in rows} == {"COMPLETED"}
            os.kill(child, signal.SIGKILL)

            async def again() -> bool:
                return worker.called("taskflow-child") not in ([], [child])

            await happens(again, 20)
            rows = await home.ended(await home.submit("noop", 3))
            assert {row["status"] for row in rows} == {"COMPLETED"}
            assert worker.called("taskflow-forks") not in ([], [first])
