"""The guardian: a small process that outlives a killed fleet's owner, ends the fleet, and then itself.

It holds the reading end of a pipe whose other end is the owner's alone: the kernel closes that one however the
owner dies, kill -9 included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil

from core.clock import monotonic, pause

MARK: Final = "TASKFLOW_FLEET"
_SECONDS: Final = 10.0
_DISMISSED: Final = b"done"


class Guardian:
    """The owner's side."""

    def __init__(self, mark: str, temporary: Path | None) -> None:
        self._mark = mark
        self._temporary = temporary
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start watching."""
        arguments = [self._mark, *([str(self._temporary)] if self._temporary else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "services.dev.guardian", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """All is stopped: there is nothing left to do for it."""
        if self._process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.communicate(_DISMISSED, timeout=_SECONDS)
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS)
            self._process = None


def argument(mark: str) -> str:
    """Return the argument by which a process of a fleet is found: its environment is closed to us (process_protection).

    No service reads it.
    """
    return f"--fleet={mark}"


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that carries this mark: services as an argument, what they start in its environment."""
    return [process for process in psutil.process_iter() if _carries(process, mark)]


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return argument(mark) in process.cmdline() or process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


def end(mark: str) -> None:
    """Kill every process with this mark, and whatever they start meanwhile."""
    until = monotonic() + _SECONDS
    while (left := marked(mark)) and monotonic() < until:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        pause(0.05)


def main(arguments: list[str]) -> int:
    """Wait for the owner's end; `arguments` are the mark and, perhaps, a directory with servers to remove."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever stops the owner shall not stop us before
    said = b""
    while part := os.read(0, 64):
        said += part
    if said == _DISMISSED:
        return 0
    end(arguments[0])
    for directory in arguments[1:]:
        from core import embedded  # noqa: PLC0415 - the usual end does not need it

        embedded.stop(Path(directory), delete=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
