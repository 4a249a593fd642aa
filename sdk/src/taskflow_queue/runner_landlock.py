"""Landlock: each child of a worker is confined, so that a task reaches neither the worker nor another child.

A process in a Landlock domain cannot read, trace or take descriptors of a process outside of its domain, and, from
version 6 of Landlock on, cannot send it a signal. Every child enters a domain of its own; what a task starts is in it.
Files, the network and a task's own processes stay as they are.

Landlock asks for no_new_privs, which the container sets under Kubernetes (allowPrivilegeEscalation: false). Without it
nothing is confined: to set it here would take sudo from tasks that use it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import ctypes

_PR_GET_NO_NEW_PRIVS: Final = 39
# Landlock's system calls have the same numbers on every processor.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ONLY_VERSION: Final = 1
_BENEATH: Final = 1
_REFER: Final = 1 << 13  # rename and link between directories, which Landlock denies wherever it is not granted
_SIGNALS: Final = 1 << 1
OLDEST: Final = 2  # version 1 denies renames between directories, with no way to grant them
SCOPES_SIGNALS: Final = 6

_ABSENT: Final = (
    "Tasks of this worker are not confined: the kernel offers no Landlock of version 2 or newer, or the container's"
    " seccomp profile forbids it. Tasks can read each other's payloads and send signals to the worker; they cannot read"
    " the worker's passwords. Use Linux 6.12 or newer with Landlock enabled."
)
_OLD: Final = (
    "Tasks of this worker are confined by Landlock version {version}: they can still send signals to the worker and to"
    " each other. Use Linux 6.12 or newer (Landlock version 6)."
)
_FAILED: Final = "Tasks of this process are not confined: Landlock refused ({error})."


def prepare() -> int | None:
    """Return a descriptor of the rules for `enter`; None where children are not to be confined, or cannot be.

    Writes one line to stderr when a container asks for it (no_new_privs) and the kernel offers less than all.
    """
    if sys.platform != "linux" or _libc().prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return None
    found = version()
    if found < SCOPES_SIGNALS:
        _tell(_OLD.format(version=found) if found >= OLDEST else _ABSENT)
    if found < OLDEST:
        return None
    try:
        return rules(found)
    except OSError as error:
        _tell(_FAILED.format(error=error))
        return None


def enter(rules: int | None) -> None:
    """Confine this process, in a domain of its own, and close the descriptor. No other thread may run yet."""
    if rules is not None:
        try:
            _call(_RESTRICT, rules, 0)
        except OSError as error:
            _tell(_FAILED.format(error=error))
        os.close(rules)


def version() -> int:
    """Return the version of Landlock that the kernel offers; 0 for none."""
    with contextlib.suppress(OSError):
        return _call(_CREATE, None, 0, _ONLY_VERSION)
    return 0


def rules(version: int) -> int:
    """Return a descriptor of the rules that this version offers. Raises OSError."""
    if version >= SCOPES_SIGNALS:
        attributes = struct.pack("=QQQ", 0, 0, _SIGNALS)  # handled_access_fs, handled_access_net, scoped
        return _call(_CREATE, attributes, len(attributes), 0)
    # Older ones want a right of the file system to handle: the one that every process keeps, by the rule below.
    attributes = struct.pack("=Q", _REFER)
    made = _call(_CREATE, attributes, len(attributes), 0)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        _call(_ADD, made, _BENEATH, struct.pack("=Qi", _REFER, root), 0)
    except OSError:
        os.close(made)
        raise
    finally:
        os.close(root)
    return made


def _call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call. Raises OSError."""
    import ctypes  # noqa: PLC0415 - 10 ms that only Linux needs

    words: list[Any] = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer: int = _libc().syscall(ctypes.c_long(number), *words)
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


def _libc() -> ctypes.CDLL:
    import ctypes  # noqa: PLC0415 - as above

    return ctypes.CDLL(None, use_errno=True)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - there is no logging here
