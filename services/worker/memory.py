"""How much memory a child uses, and whether the kernel has killed for want of it. Linux; elsewhere nothing is known."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_V1, _V2 = "memory.oom_control", "memory.events"


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 when it is gone."""
    try:
        with Path(f"/proc/{pid}/statm").open("rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


class OomCounter:
    """The kernel's count of processes killed in this cgroup, v1 or v2."""

    def __init__(self, cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> None:
        self._file = _counter_file(cgroups, own)

    def read(self) -> int:
        """Return the count; 0 where there is none."""
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _counter_file(cgroups: Path, own: Path) -> Path | None:
    """Find the counter: in a container the own cgroup is usually mounted as the root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            roots, name = [cgroups / "memory"], _V1
        elif not controllers:
            roots, name = [cgroups, cgroups / "unified"], _V2
        else:
            continue
        for folder in [root / path.lstrip("/") for root in roots] + roots:
            if "oom_kill " in _text(folder / name):
                return folder / name
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
