"""Orphans: as a subreaper the worker inherits what tasks start and leave behind.

Nobody else waits for such a process when it ends, and each would keep its place in the process table until the pod
may have no more of them. Children of our own are passed over: forked.py waits for those, and reads how each ended.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from core import clock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.worker.child import Child

_LOOK_SECONDS: Final = 5.0


def reap(own: Collection[int]) -> int:
    """Wait for processes that have ended and are none of `own`; return how many there were.

    One of `own` that has ended hides those behind it. It is waited for in a moment, so the next look finds them.
    """
    reaped = 0
    while (pid := _ended()) is not None and pid not in own:
        os.waitpid(pid, os.WNOHANG)
        reaped += 1
    return reaped


async def reap_orphans(children: Iterable[Child]) -> None:
    """Reap what is not of `children`, for ever."""
    while True:
        await clock.system.sleep(_LOOK_SECONDS)
        own = list(children)
        if all(child.pid or not child.alive for child in own):  # else the number of a child is still on its way to us
            reap({child.pid for child in own})


def _ended() -> int | None:
    """The pid of a child process that has ended, which is left as it is."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None
