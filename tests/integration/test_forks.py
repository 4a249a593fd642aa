"""The fork server: what its children share, what they do not, and what becomes of them without it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.worker.forked import UNKNOWN, Forked
from taskflow_queue import protocol as wire
from tests.kid import ROOT, Kid, alive, fork_server
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


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with closing(fork_server()) as server:
        yield server


def told(kid: Kid) -> dict[str, Any]:
    """What a child says of itself."""
    kid.ready()
    said: dict[str, Any] = json.loads(kid.done(kid.run("facts")).result or b"{}")
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
        for _ in range(2):  # and the server goes on
            ours, theirs = socket.socketpair()
            with ours, theirs, tempfile.TemporaryFile() as mark:
                server.fork(theirs.fileno(), mark.fileno(), 0)
                theirs.close()
                assert ours.recv(1) == b""
    assert "cannot fork a child: [Errno 11]" in capfd.readouterr().err


async def test_a_process_that_somebody_else_has_waited_for_ends_all_the_same() -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    ended = asyncio.get_running_loop().create_future()
    Forked(gone.pid, ended.set_result)
    assert await ended == UNKNOWN


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
