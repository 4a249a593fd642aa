"""The fork server: a runner that has imported nothing of the user's yet, from which each child is forked.

Importing costs more than anything else in the life of a child, and is done once here. What a child imports afterwards
is its own: modules of users may open connections and start threads, neither of which survives a fork. Nothing but the
main thread runs here, and no loop.

A child belongs to the supervisor, not to this process: whoever forks it exits at once, and Linux gives it to the
supervisor, which is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER). So the supervisor learns how a child ended, and
children outlive their fork server.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from typing import Final, NamedTuple

from taskflow_queue import runner_guard
from taskflow_queue.protocol import FD_VARIABLE, FORK, PARENT_VARIABLE, Born, encode

_DESCRIPTORS: Final = 2
_NUMBER: Final = 16  # bytes of a process id, and more


class Fork(NamedTuple):
    """What a child is given: its end of the socket pair, the descriptor of its mark, its wall in MB (0 for none)."""

    end: socket.socket
    mark: int
    wall: int


def serve() -> Fork:
    """Fork a child for each request; returns in the children only. This process ends with its supervisor."""
    number, parent = os.environ.pop(FD_VARIABLE, ""), os.environ.pop(PARENT_VARIABLE, "")
    if not number.isdigit() or not parent.isdigit():
        sys.exit(f"{FD_VARIABLE} is not set: this program is started by a worker, see `taskflow worker --help`")
    runner_guard.die_with(int(parent))
    runner_guard.call("taskflow-forks")
    gc.freeze()  # a collection would touch, and so copy, what children share
    with socket.socket(fileno=int(number)) as asked:
        asked.set_inheritable(False)
        while True:
            data, descriptors, _, _ = socket.recv_fds(asked, FORK.size, _DESCRIPTORS)
            if not data:
                os._exit(0)
            end, mark = descriptors
            if _fork(end):
                os.close(end)
                os.close(mark)
                continue
            asked.close()
            runner_guard.die_with(int(parent))
            runner_guard.call("taskflow-child")
            return Fork(socket.socket(fileno=end), mark, *FORK.unpack(data))


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
            there.recv(1)  # nothing: the other end is closed when the one between has gone
            return False
        there.close()
        if middle > 0:
            os.waitpid(middle, 0)
            if pid := here.recv(_NUMBER):
                os.write(end, encode([Born(int(pid))]))
    return True


def _forked() -> int:
    """Fork. The new process's number, 0 in it; -1 when there is none, and the supervisor finds its socket closed."""
    try:
        return os.fork()
    except OSError as wrong:
        print(f"cannot fork a child: {wrong}", file=sys.stderr, flush=True)  # noqa: T201 - there is no logging here
        return -1
