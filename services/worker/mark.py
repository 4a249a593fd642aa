"""The memory in which a child notes what it has begun: it tells a death's culprits from those that waited."""

from __future__ import annotations

import fcntl
import os
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from taskflow_queue.protocol import MARK

if TYPE_CHECKING:
    from services.worker.holding import Key

_NAME: Final = "taskflow-started"
_NOEXEC_SEAL: Final = 8  # which a machine may demand (vm.memfd_noexec); Python 3.11 has no name for it


class Begun(NamedTuple):
    """The sync task that began last, if any did, and how many of the async ones have begun."""

    sync: Key | None
    asyncs: int


def _memory() -> int:
    """Return a descriptor of memory that has no name in any folder, where another child could open it."""
    try:
        return os.memfd_create(_NAME, os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError:  # Linux before 6.3, which never asks for the flag
        return os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class Mark:
    """One child's note. What is in it is the child's word, and only says something of the child's own tasks."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def open(self) -> int:
        """Make it; the descriptor is for the child to inherit."""
        number = _memory()
        self._file = os.fdopen(number, "r+b", buffering=0)
        self._file.truncate(MARK.size)
        # A child that made it shorter would end the worker, which reads it after the child's death.
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return number

    def take(self) -> Begun:
        """Return the note and forget it: after the child's death."""
        if self._file is None:
            return Begun(None, 0)
        with self._file as file:
            self._file = None
            task, attempt, asyncs = MARK.unpack(os.pread(file.fileno(), MARK.size, 0))
        return Begun((task, attempt) if attempt else None, asyncs)
