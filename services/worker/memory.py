"""How much memory a child uses, and whether the kernel has killed for want of it. Linux; elsewhere nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from services.worker.allowance import CGROUPS, LEAST_MB, MEGABYTE, OWN, memory_cgroups, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.worker.allowance import Allowance
    from services.worker.child import Child

_V1, _V2 = "memory.oom_control", "memory.events"
_FASTEST: Final = 2048 * MEGABYTE  # bytes a second that one process can fill
_LONGEST_PAUSE: Final = 0.2
_SHORTEST_PAUSE: Final = 0.02
log = telemetry.get_logger("worker.memory")


class MemoryWatch:
    """Ends the children that use more than they may, before the kernel does."""

    def __init__(self, children: Iterable[Child], allowance: Callable[[], Allowance]) -> None:
        self._children = children
        self._allowance = allowance

    async def serve(self) -> None:
        """Look, for ever."""
        while True:
            await clock.system.sleep(self.look())

    def look(self) -> float:
        """Look once; return the seconds in which no child can reach its limit."""
        pause = _LONGEST_PAUSE
        allowance = self._allowance()
        for child in self._children if allowance.most else ():
            if not child.alive or not (child.ready or allowance.firm):
                continue
            most, used = _most(child, allowance), used_bytes(child.pid)
            if used > most:
                log.warning("a child uses more memory than it may", pid=child.pid, used=used, most=most)
                child.kill("memory")
            else:  # also of an idle one: what it is given next begins without us
                pause = min(pause, (most - used) / _FASTEST)
        return max(pause, _SHORTEST_PAUSE)


def _most(child: Child, allowance: Allowance) -> int:
    """Return what a child may use in bytes: a share that was not set leaves a task room beside large modules."""
    if allowance.firm:
        return allowance.most * MEGABYTE
    return max(allowance.most * MEGABYTE, child.baseline + LEAST_MB * MEGABYTE)


def used_bytes(pid: int) -> int:
    """Return the memory that only this process needs, without the files it has mapped; 0 when it is gone."""
    try:
        with Path(f"/proc/{pid}/status").open("rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    said = [line for line in lines if line.startswith((b"RssAnon:", b"RssShmem:"))]
    said = said or [line for line in lines if line.startswith(b"VmRSS:")]  # some sandboxes tell no more than this
    return sum(1024 * int(line.split()[1]) for line in said)


class OomCounter:
    """The kernel's count of processes killed in this cgroup, v1 or v2."""

    def __init__(self, cgroups: Path = CGROUPS, own: Path = OWN) -> None:
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
    for root, path, version in memory_cgroups(cgroups, own):
        name = _V1 if version == 1 else _V2
        for folder in (root / path, root):
            if "oom_kill " in text_of(folder / name):
                return folder / name
    return None
