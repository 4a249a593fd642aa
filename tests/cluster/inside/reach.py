"""Tasks that try to reach what is not theirs, for tests on the machine and in a cluster. They change nothing.

Each attempt ends "open" or "refused"; whatever else happens is an error of the test.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from taskflow_queue import task

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = {errno.EPERM, errno.EACCES}
NO_CALL = "no such call here"
PIDFD_GETFD = 438
PTRACE_SEIZE = 0x4206
LIBC = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@task
def hold(canary: str, until: str = "", seconds: float = 60.0) -> str:
    """Stay in this child with a payload that others look for, until that file is there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and Path(until).exists()):
        time.sleep(0.02)
    return canary


@task
def reach(payload: str, password: str, others: dict[str, int], finished: str = "") -> dict[str, dict[str, str]]:
    """Try everything on the supervisor, the fork server, another child, and `others` (names and process ids).

    `payload` is that of the other child's task, `password` the database's. Both are written backwards: what is looked
    for must not stand in this task's own payload, which the supervisor holds, too.
    """
    found = {"supervisor": os.getppid(), **relatives(), **others}
    answers = {name: tries(pid, payload[::-1].encode(), password[::-1].encode()) for name, pid in found.items()}
    answers["own child"] = own_child()
    answers["own files"] = own_files()
    if finished:
        Path(finished).touch()
    return answers


def relatives() -> dict[str, int]:
    """The fork server and another child of the same supervisor."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = file.read_text()
        except OSError:  # it has ended
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        pid, parent = int(file.parent.name), int(rest.split()[1])
        if parent == os.getppid() and pid != os.getpid():
            found[name] = pid
    return {"fork server": found["taskflow-forks"], "other child": found["taskflow-child"]}


def tries(pid: int, payload: bytes, password: bytes) -> dict[str, str]:
    """What the kernel lets this process do with that one, and what is found there."""
    place = Path(f"/proc/{pid}")
    return {
        "environ": attempt(lambda: password in (place / "environ").read_bytes()),
        "payload in memory": attempt(lambda: seen(place, payload)),
        "password in memory": attempt(lambda: seen(place, password)),
        "process_vm_readv": known(readv) or attempt(lambda: readv(pid)),
        "descriptors": attempt(lambda: [link.readlink() for link in (place / "fd").iterdir()]),
        "pidfd_getfd": known(getfd) or attempt(lambda: getfd(pid)),
        "trace": traced(pid),
        "signal": attempt(lambda: os.kill(pid, 0)),
        "signal by pidfd": attempt(lambda: pidfd_signal(pid)),
    }


def attempt(action: Callable[[], object]) -> str:
    try:
        answer = action()
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return "refused"
    return "open, found" if answer is True else "open"


def known(action: Callable[[int], None]) -> str:
    """Nothing, or that a container's seccomp profile refuses this call altogether: on this very process, too."""
    return "" if attempt(lambda: action(os.getpid())) == "open" else NO_CALL


def seen(place: Path, wanted: bytes) -> bool:
    """Whether these bytes stand anywhere in a process's memory."""
    with (place / "mem").open("rb", buffering=0) as memory:
        for line in (place / "maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw") and end - start < 1 << 28:
                memory.seek(start)
                try:
                    if wanted in memory.read(end - start):
                        return True
                except OSError as error:  # a region that has gone, or that nobody may read
                    if error.errno != errno.EIO:
                        raise
    return False


def check(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def readv(pid: int) -> None:
    """Rights are looked at before addresses: one that is not there means that there was a right."""
    buffer = ctypes.create_string_buffer(8)
    here = Vector(ctypes.addressof(buffer), 8)
    try:
        check(LIBC.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(here), 1, 0))
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise


def getfd(pid: int) -> None:
    process = os.pidfd_open(pid)
    try:
        os.close(check(LIBC.syscall(PIDFD_GETFD, process, 2, 0)))
    finally:
        os.close(process)


def pidfd_signal(pid: int) -> None:
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, 0)
    finally:
        os.close(process)


def traced(pid: int) -> str:
    """In a process of its own, with whose end the tracing ends."""
    helper = os.fork()
    if not helper:
        answer = LIBC.ptrace(PTRACE_SEIZE, pid, None, None)
        os._exit(0 if answer == 0 else ctypes.get_errno())
    status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if status not in {0, *REFUSED}:
        raise OSError(status, os.strerror(status))
    return "refused" if status else "open"


def own_child() -> dict[str, str]:
    """What must go on: a task rules over what it has started."""
    helper = os.fork()
    if not helper:
        time.sleep(60)
        os._exit(0)
    answers = {
        "environ": attempt(lambda: Path(f"/proc/{helper}/environ").read_bytes()),
        "signal": attempt(lambda: os.kill(helper, signal.SIGKILL)),
    }
    os.waitpid(helper, 0)
    return answers


def own_files() -> dict[str, str]:
    """What must go on: a rename and a link between directories, and what a process says of itself to the kernel."""
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"reach-{os.getpid()}"
    (place / "a").mkdir(parents=True)
    (place / "b").mkdir()
    (place / "a/file").touch()

    def renamed() -> None:
        (place / "a/file").rename(place / "b/file")
        (place / "a/link").hardlink_to(place / "b/file")

    def score() -> None:
        file = Path("/proc/self/oom_score_adj")
        file.write_text(file.read_text())

    def name() -> None:
        file = Path("/proc/self/comm")
        file.write_text(file.read_text())

    def goes_first() -> None:
        """It told the kernel so when it was made, and nobody refused that."""
        own, supervisor = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in ("self", os.getppid()))
        if own != min(supervisor + 100, 1000):
            raise PermissionError(errno.EACCES, "the score was not raised")

    answers = {"rename": attempt(renamed), "oom_score_adj": attempt(score), "comm": attempt(name)}
    answers["goes first"] = attempt(goes_first)
    shutil.rmtree(place)
    return answers
