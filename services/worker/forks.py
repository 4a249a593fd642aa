"""The fork server of the children, as its supervisor has it: runner_forks.py of the SDK is the program.

It is started before anything heavy is imported here, asyncio included: it imports meanwhile.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from typing import Final

from core import config
from core.errors import TaskFlowError
from taskflow_queue import protocol as wire

_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TMPDIR")
PR_SET_CHILD_SUBREAPER: Final = 36
_ASK_SECONDS: Final = 5.0  # a request is a few bytes; one that does not fit has met a server that does not read


def environment() -> dict[str, str]:
    """Return what a child may see: no secret, unless TASKFLOW_WORKER_PASS_ENV names it."""
    mine = os.environ  # noqa: TID251 - this hands the environment on; it reads no setting
    names = {*_INHERITED, *config.settings.worker_pass_env}
    return {name: mine[name] for name in names if name in mine}


def adopt_orphans() -> None:
    """Become the parent of what processes below this one leave behind: of what the fork server forks above all.

    To be called before it is asked to. Raises TaskFlowError where the kernel does not know this.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by whoever started us, it would hide how they end
    import ctypes  # noqa: PLC0415 - while the fork server imports

    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) and os.getpid() != 1:
        message = "this system has no subreapers (prctl 36), which a worker needs unless it is process 1 of a container"
        raise TaskFlowError(message)


class ForkServer:
    """The process; a new one is started when it is gone. Raises OSError where it cannot be started."""

    def __init__(self, python: str, variables: dict[str, str]) -> None:
        """`variables`: what children see of the environment."""
        self._python = python
        self._variables = variables
        self._start()

    def _start(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(_ASK_SECONDS)
        given = {wire.FD_VARIABLE: str(theirs.fileno()), wire.PARENT_VARIABLE: str(os.getpid())}
        if not config.settings.process_protection:
            given[wire.OPEN_VARIABLE] = "1"
        with theirs:
            self._process = subprocess.Popen(
                [self._python, "-u", "-m", "taskflow_queue.runner"],
                env=self._variables | given,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        """The process id of the present one."""
        return self._process.pid

    def fork(self, end: int, mark: int, wall: int) -> None:
        """Ask for a child with these two descriptors; its first message on the other side of `end` is Born.

        Raises OSError when there is no fork server and none can be started.
        """
        request = [wire.FORK.pack(wire.VERSION, wall)]
        try:
            socket.send_fds(self._ours, request, [end, mark])
        except OSError:
            self.close()
            self._start()
            socket.send_fds(self._ours, request, [end, mark])

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self._ours.close()
        self._process.kill()
        self._process.wait()
