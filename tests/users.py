"""Processes of another user than the one who runs the tests, where that one is root."""

from __future__ import annotations

import os
import tempfile
from enum import Enum
from pathlib import Path

IS_ROOT = os.geteuid() == 0
UID = 65532 if IS_ROOT else os.geteuid()  # whoever is not root is such a user already


class Root(Enum):
    """What of root a program keeps: nothing, what Docker leaves it that matters here, or all."""

    NO = 0
    FEW = 1
    ALL = 2


def as_user(root: Root = Root.NO, *, no_new_privs: bool = False, uid: int = UID) -> list[str]:
    """The command that becomes another program, as `uid` unless it shall stay root."""
    words = ["--no-new-privs"] if no_new_privs else []
    if IS_ROOT and root is Root.FEW:
        words += ["--bounding-set=-sys_ptrace,-sys_admin,-perfmon", "--inh-caps=-all"]
    if IS_ROOT and root is Root.NO:
        words += [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        # A Python below a folder of root's is found all the same. The right to search folders opens nothing of /proc.
        words += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", *words] if words else []


def open_to_all(folder: Path) -> None:
    """Let other users find what is in a folder of pytest's."""
    top = Path(tempfile.gettempdir())
    for one in (folder, *folder.parents):
        if one != top and one.is_relative_to(top):
            one.chmod(one.stat().st_mode | 0o011)
