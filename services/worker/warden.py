"""The warden: a shell of a few lines that outlives a supervisor which was killed, and ends what its children started.

The kernel ends the children themselves (runner_guard.py of the SDK), not the programs that a task has started. The
warden reads from a pipe that the supervisor alone can write to, so its end tells of any death of the supervisor. As
process 1 of a container there is none: the kernel ends the whole container with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Final

_SHELL: Final = "/bin/sh"
_SCRIPT: Final = """
trap '' INT TERM HUP
groups=' '
while read -r word group; do
    case $word in
        +) groups="$groups$group " ;;
        -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
    esac
done
for group in $groups; do kill -KILL "-$group"; done
"""


class Warden:
    """The supervisor's side: it names the process groups that shall not outlive it. Nothing here ever raises."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if os.getpid() != 1:
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    [_SHELL, "-c", _SCRIPT],
                    env={},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    start_new_session=True,
                )

    def watch(self, group: int) -> None:
        """End this process group when the supervisor dies."""
        self._say(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """Leave it alone: it has ended, and its number may become somebody else's."""
        self._say(f"- {group}\n")

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line.encode())
