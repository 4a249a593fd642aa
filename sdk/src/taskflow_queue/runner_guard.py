"""A child must not outlive its supervisor, and must not take the machine down with it."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import signal
import struct
import sys
from typing import Final

from taskflow_queue.protocol import MARK

_PR_SET_PDEATHSIG: Final = 1
_MEGABYTE: Final = 1024 * 1024
_NAME: Final = "/proc/self/comm"
_SCORE: Final = "/proc/self/oom_score_adj"
_MORE: Final = 100  # as if it used a tenth of the memory more
_NOT_FIRST: Final = (
    "cannot write /proc/self/oom_score_adj ({}): when memory runs out, Linux may end the worker before its tasks. Let"
    " this process write its own files in /proc"
)
_HIGHEST: Final = 1000
_SYNC, _ASYNC = struct.Struct("16sq"), struct.Struct("q")  # the two halves of MARK


class Marker:
    """Notes what has begun, for the supervisor to read after a death."""

    def __init__(self, file: int) -> None:
        """Take the memory that the supervisor shares, and close the descriptor of it."""
        self._memory = mmap.mmap(file, MARK.size)
        os.close(file)

    def began(self, task: bytes, attempt: int) -> None:
        """A sync task begins."""
        _SYNC.pack_into(self._memory, 0, task, attempt)

    def began_async(self, place: int) -> None:
        """The async task at this place begins, and all before it have."""
        _ASYNC.pack_into(self._memory, _SYNC.size, place)


def die_with(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent dies; elsewhere the end of the socket has to do."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - 10 ms that only Linux needs

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


def call(name: str) -> None:
    """Give this process a name for top and ps, and for the kernel when it tells whom it has killed."""
    with contextlib.suppress(OSError), open(_NAME, "w", encoding="ascii") as file:  # noqa: PTH123 - as below
        file.write(name)


def go_first() -> None:
    """Tell Linux to end this process before its supervisor when memory runs out all the same."""
    try:
        with open(_SCORE, "r+", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs a start 5 ms
            score = int(file.read())
            file.seek(0)
            file.write(str(min(score + _MORE, _HIGHEST)))
    except FileNotFoundError:  # no Linux
        return
    except OSError as refused:
        print(_NOT_FIRST.format(refused.strerror), file=sys.stderr, flush=True)  # noqa: T201 - there is no logging here


def wall_in(megabytes: int) -> None:
    """Limit the data of this process far above what the supervisor allows, so that one leap cannot fill the machine."""
    if megabytes:
        wall = megabytes * _MEGABYTE
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (wall if hard == resource.RLIM_INFINITY else min(wall, hard), hard))


def walled() -> bool:
    """Whether the data of this process is limited."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
