"""Protects this process from other processes of the same user: its environment and memory hold passwords.

Only processes that hold secrets call `protect`. What they start with exec is a process like any other again; what they
fork without exec stays protected, and such a child could not write its own files in /proc (they belong to root then).
"""

from __future__ import annotations

import sys
from typing import Final

from core.config import settings

_PR_SET_DUMPABLE: Final = 4
_FAILED: Final = (
    "This process could not protect its memory (prctl 4): other processes of its user can read its passwords. Run it"
    " under a user of its own."
)


def protect() -> None:
    """Refuse debuggers, core dumps and readers of /proc/<pid>, except those with CAP_SYS_PTRACE.

    Does nothing when TASKFLOW_PROCESS_PROTECTION is off, and nothing outside of Linux. Raises SettingError.
    """
    if not settings.process_protection or sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - 10 ms that only Linux needs

    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        print(_FAILED, file=sys.stderr, flush=True)  # noqa: T201 - nothing logs yet when this is called
