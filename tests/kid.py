"""A real child process of a worker, driven by hand: for tests of the runner without any supervisor."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import msgspec

from services.worker.forks import PR_SET_CHILD_SUBREAPER, ForkServer, adopt_orphans
from taskflow_queue import protocol as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent


def fork_server(**variables: str) -> ForkServer:
    """One whose children see these variables."""
    return ForkServer(sys.executable, {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables})


@contextmanager
def adopting() -> Iterator[None]:
    """Be the parent of children that are forked meanwhile; pytest shall not be that of all that tests leave behind."""
    adopt_orphans()
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def ask(server: ForkServer, end: socket.socket, wall: int = 0) -> None:
    """Ask for a child at this end of a socket pair."""
    with end, tempfile.TemporaryFile() as mark:
        mark.truncate(wire.MARK.size)
        server.fork(end.fileno(), mark.fileno(), wall)


class Kid:
    """A child at the other end of a socket pair, of a fork server of its own unless one is given."""

    def __init__(
        self, *modules: str, slots: int = 100, wall: int = 0, server: ForkServer | None = None, **variables: str
    ) -> None:
        """`wall`: the MB at which its allocations fail."""
        self._server = server or fork_server(**variables)
        self._sole = server is None
        self.end, theirs = socket.socketpair()
        self._decoder = wire.SupervisorDecoder()
        self.seen: list[wire.ToSupervisor] = []
        with adopting():
            ask(self._server, theirs, wall)
            self.pid: int = self.until(lambda message: isinstance(message, wire.Born)).pid
        self.send(wire.Hello(wire.VERSION, list(modules or ("tests.handlers",)), slots))
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sole:
            self._server.close()
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self.end.close()

    def wait(self, within: float = 5.0) -> int:
        """Wait for its end; negative is a signal."""
        process = os.pidfd_open(self.pid)
        try:
            assert select.select([process], [], [], within)[0], "it has not ended"
        finally:
            os.close(process)
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def send(self, *messages: wire.ToChild) -> None:
        self.end.sendall(wire.encode(list(messages)))

    def run(  # a keyword more is an argument of the task
        self, name: str, *, attempt: int = 1, timeout: float | None = None, soft: float | None = None, **kwargs: Any
    ) -> tuple[bytes, int]:
        """Send one task of tests/handlers.py and return its key."""
        task = uuid.uuid4().bytes
        payload = msgspec.json.encode(kwargs)
        self.send(wire.Run(task, attempt, f"tests.handlers:{name}", payload, timeout, soft))
        return task, attempt

    def until(self, found: Callable[[wire.ToSupervisor], bool], within: float = 15.0) -> Any:
        """Return the first message that fits, among those seen before too."""
        for message in self.seen:
            if found(message):
                return message
        until = monotonic() + within
        while (left := until - monotonic()) > 0:
            self.end.settimeout(left)
            data = self.end.recv(1 << 20)
            if not data:
                raise EOFError("the child closed its socket")
            new = self._decoder.feed(data)
            self.seen += new
            for message in new:
                if found(message):
                    return message
        raise TimeoutError(f"not within {within} s; seen: {self.seen[-3:]}")

    def ready(self) -> wire.Ready:
        """Wait until the modules are imported."""
        answer: wire.Ready = self.until(lambda message: isinstance(message, wire.Ready))
        return answer

    def done(self, key: tuple[bytes, int], within: float = 15.0) -> wire.Done:
        """Wait for the end of an attempt."""
        answer: wire.Done = self.until(
            lambda message: isinstance(message, wire.Done) and (message.id, message.attempt) == key, within
        )
        return answer


def alive(pid: int) -> bool:
    """Whether a process runs: one that ended and that nobody has asked about yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
