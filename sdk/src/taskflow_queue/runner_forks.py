"""The fork server: a runner that has imported nothing of the user's yet, from which each child is forked.

Importing costs more than anything else in the life of a child, and is done once here. What a child imports afterwards
is its own: modules of users may open connections and start threads, neither of which survives a fork. Nothing but the
main thread runs here, and no loop.

A child belongs to the supervisor, not to this process: whoever forks it exits at once, and Linux gives it to the
supervisor, which is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER). So the supervisor learns how a child ended, and
children outlive their fork server.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from typing import Final, NamedTuple

from taskflow_queue import runner_guard, runner_landlock
from taskflow_queue.protocol import FD_VARIABLE, FORK, OPEN_VARIABLE, PARENT_VARIABLE, VERSION, Born, encode

_DESCRIPTORS: Final = 2
_THREADS: Final = "/proc/self/task"
_THREADED: Final = (
    "something that Python imports by itself (sitecustomize, a .pth file) has started a thread. Tasks run in forks of"
    " this process, which have no such thread unless os.register_at_fork starts it again"
)
_NUMBER: Final = 16  # bytes of a process id, and more


class Fork(NamedTuple):
    """What a child is given: its end of the socket pair, the descriptor of its mark, its wall in MB (0 for none)."""

    end: socket.socket
    mark: int
    wall: int


def serve() -> Fork:
    """Fork a child for each request; returns in the children only. This process ends with its supervisor."""
    number, parent = os.environ.pop(FD_VARIABLE, ""), os.environ.pop(PARENT_VARIABLE, "")
    confined = os.environ.pop(OPEN_VARIABLE, None) is None
    if not number.isdigit() or not parent.isdigit():
        sys.exit(f"{FD_VARIABLE} is not set: this program is started by a worker, see `taskflow worker --help`")
    runner_guard.die_with(int(parent))
    runner_guard.call("taskflow-forks")
    rules = runner_landlock.prepare() if confined else None
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by whoever started the worker, it would hide deaths
    if len(os.listdir(_THREADS)) > 1:  # noqa: PTH208 - pathlib costs a start 5 ms
        print(_THREADED, file=sys.stderr, flush=True)  # noqa: T201 - there is no logging here
    gc.freeze()  # a collection would touch, and so copy, what children share
    with socket.socket(fileno=int(number)) as asked:
        while True:
            data, descriptors, _, _ = socket.recv_fds(asked, FORK.size, _DESCRIPTORS)
            if not data:
                os._exit(0)
            version, wall = FORK.unpack(data)
            if version != VERSION:
                sys.exit(f"the worker speaks version {version} with its children, and this SDK version {VERSION}")
            end, mark = descriptors
            if _fork(end):
                os.close(end)
                os.close(mark)
                continue
            asked.close()
            runner_guard.die_with(int(parent))
            runner_guard.call("taskflow-child")
            runner_landlock.enter(rules)
            ours = socket.socket(fileno=end)
            ours.set_inheritable(False)  # no program that a task starts shall have it
            return Fork(ours, mark, wall)


def _fork(end: int) -> bool:
    """Fork a child and announce it on `end`; False in the child, which goes on when it is the supervisor's."""
    here, there = socket.socketpair()
    with here, there:
        middle = _forked()
        if middle == 0:
            if _forked() != 0:
                os._exit(0)
            os.setsid()
            here.close()
            there.send(str(os.getpid()).encode())
            if not there.recv(1):  # the fork server is gone, and the supervisor may not know this process
                os._exit(0)
            return False
        there.close()
        if middle > 0:
            os.waitpid(middle, 0)
            if pid := here.recv(_NUMBER):
                with contextlib.suppress(OSError):  # the supervisor has thought better of it: so does the child
                    os.write(end, encode([Born(int(pid))]))
                    here.send(b"+")
    return True


def _forked() -> int:
    """Fork. The new process's number, 0 in it; -1 when there is none, and the supervisor finds its socket closed."""
    try:
        return os.fork()
    except OSError as wrong:
        print(f"cannot fork a child: {wrong}", file=sys.stderr, flush=True)  # noqa: T201 - there is no logging here
        return -1
