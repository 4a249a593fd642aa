"""A process that the fork server has forked: watched, ended with all it has started, and reaped.

It is this process's own child, so its death is seen at once and its number is never somebody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN: Final = 255  # the status of a process that never was, or that somebody else has waited for


class Forked:
    """A process that was forked for us, from its birth to its end. It leads a session and a process group."""

    def __init__(self, pid: int, ended: Callable[[int], None]) -> None:
        """`ended` is told the status, as waitpid has it: negative is a signal. Not before this has returned."""
        self.pid = pid
        self._ended = ended
        self._alive = True
        loop = asyncio.get_running_loop()
        try:
            self._exit = os.pidfd_open(pid)
        except ProcessLookupError:  # somebody else has waited for it
            self._alive = False
            loop.call_soon(self._end, UNKNOWN)
        else:
            loop.add_reader(self._exit, self._reap)

    def kill(self) -> None:
        """End it now, with every process it has started in its session."""
        if self._alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def nudge(self) -> None:
        """Send it, and it alone, SIGTERM."""
        if self._alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def _reap(self) -> None:
        """Wait for it. Its process group goes first, while its number cannot belong to anybody else."""
        asyncio.get_running_loop().remove_reader(self._exit)
        os.close(self._exit)
        self.kill()
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            self._end(UNKNOWN)
        else:
            self._end(os.waitstatus_to_exitcode(status))

    def _end(self, status: int) -> None:
        self._alive = False
        self._ended(status)
