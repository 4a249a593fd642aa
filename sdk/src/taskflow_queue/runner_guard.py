"""A child must not outlive its supervisor, and must not take the machine down with it."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import signal
import socket
import struct
import sys
from typing import Final

from taskflow_queue.protocol import (
    FD_VARIABLE,
    MARK,
    MARK_VARIABLE,
    MEMORY_VARIABLE,
    PARENT_VARIABLE,
    WALL_VARIABLE,
)

_PR_SET_PDEATHSIG: Final = 1
_WALL: Final = 4  # times the limit that the supervisor watches: a wall for what grows between two looks
_MEGABYTE: Final = 1024 * 1024
_SCORE: Final = "/proc/self/oom_score_adj"
_MORE: Final = 100  # as if it used a tenth of the memory more
_HIGHEST: Final = 1000
_SYNC, _ASYNC = struct.Struct("16sq"), struct.Struct("q")  # the two halves of MARK


def connect() -> socket.socket:
    """Return this end of the socket pair, known to no program that this process starts."""
    number = os.environ.pop(FD_VARIABLE, "")
    if not number.isdigit():
        sys.exit(f"{FD_VARIABLE} is not set: this program is started by a worker, see `taskflow worker --help`")
    end = socket.socket(fileno=int(number))
    end.set_inheritable(False)
    return end


class Marker:
    """Notes what has begun, for the supervisor to read after a death."""

    def __init__(self) -> None:
        """Take the memory that the supervisor shares; nobody reads the notes of a runner without one."""
        number = os.environ.pop(MARK_VARIABLE, "")
        self._memory: mmap.mmap | bytearray = bytearray(MARK.size)
        if number.isdigit():
            self._memory = mmap.mmap(int(number), MARK.size)
            os.close(int(number))

    def began(self, task: bytes, attempt: int) -> None:
        """A sync task begins."""
        _SYNC.pack_into(self._memory, 0, task, attempt)

    def began_async(self, place: int) -> None:
        """The async task at this place begins, and all before it have."""
        _ASYNC.pack_into(self._memory, _SYNC.size, place)


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the supervisor dies; elsewhere the end of the socket has to do."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - 10 ms that only Linux needs

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent and os.getppid() != int(parent):  # it died before the request
        os._exit(1)


def walled() -> int:
    """Return the wall in MB; 0 when there is none."""
    wall, most = os.environ.get(WALL_VARIABLE, ""), os.environ.get(MEMORY_VARIABLE, "")
    if wall.isdigit():
        return int(wall)
    return int(most) * _WALL if most.isdigit() else 0


def go_first() -> None:
    """Tell Linux to end this process before its supervisor when memory runs out all the same."""
    with contextlib.suppress(OSError, ValueError), open(_SCORE, "r+", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs a start 5 ms
        score = int(file.read())
        file.seek(0)
        file.write(str(min(score + _MORE, _HIGHEST)))


def wall_in() -> None:
    """Limit the data of this process far above what the supervisor allows, so that one leap cannot fill the machine."""
    megabytes = walled()
    if megabytes:
        wall = megabytes * _MEGABYTE
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (wall if hard == resource.RLIM_INFINITY else min(wall, hard), hard))
