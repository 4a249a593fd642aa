"""A real child process of a worker, driven by hand: for tests of the runner without any supervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import msgspec

from taskflow_queue import protocol as wire

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent


class Kid:
    """`python -m taskflow_queue.runner` at the other end of a socket pair."""

    def __init__(self, *modules: str, slots: int = 100, **variables: str) -> None:
        self.end, theirs = socket.socketpair()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), wire.FD_VARIABLE: str(theirs.fileno())}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskflow_queue.runner"],
            pass_fds=[theirs.fileno()],
            env={**environment, wire.PARENT_VARIABLE: str(os.getpid()), **variables},
            start_new_session=True,
        )
        theirs.close()
        self._decoder = wire.SupervisorDecoder()
        self.seen: list[wire.ToSupervisor] = []
        self.send(wire.Hello(wire.VERSION, list(modules or ("tests.handlers",)), slots))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.end.close()

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
