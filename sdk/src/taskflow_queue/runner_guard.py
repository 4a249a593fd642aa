"""A child must not outlive its supervisor, and must not take the machine down with it."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import Final

from taskflow_queue.protocol import FD_VARIABLE, MEMORY_VARIABLE, PARENT_VARIABLE

_PR_SET_PDEATHSIG: Final = 1
_WALL: Final = 4  # times the limit that the supervisor watches: a wall for what grows between two looks
_MEGABYTE: Final = 1024 * 1024


def connect() -> socket.socket:
    """Return this end of the socket pair, known to no program that this process starts."""
    number = os.environ.pop(FD_VARIABLE, "")
    if not number.isdigit():
        sys.exit(f"{FD_VARIABLE} is not set: this program is started by a worker, see `taskflow worker --help`")
    end = socket.socket(fileno=int(number))
    end.set_inheritable(False)
    return end


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the supervisor dies; elsewhere the end of the socket has to do."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - 10 ms that only Linux needs

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent and os.getppid() != int(parent):  # it died before the request
        os._exit(1)


def wall_in() -> None:
    """Limit the data of this process far above what the supervisor allows, so that one leap cannot fill the machine."""
    megabytes = os.environ.get(MEMORY_VARIABLE, "")
    if megabytes.isdigit() and int(megabytes):
        wall = int(megabytes) * _MEGABYTE * _WALL
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (wall if hard == resource.RLIM_INFINITY else min(wall, hard), hard))
