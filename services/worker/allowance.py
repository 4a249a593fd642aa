"""How much memory a child may have, from the setting and the container's limit.

The kernel ends a container that is above its limit as a whole (cgroup v2 under Kubernetes 1.28 and later), so that
nobody could say any more whose fault it was. Each child is therefore ended first, at its share of the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
MEGABYTE: Final = 1024 * 1024
LEAST_MB: Final = 64  # a share, and what a task may add to the modules: below that nothing would run at all
_WALL: Final = 4  # times what a child may use: where the child's own allocations fail
_SUPERVISOR_MB: Final = 64  # what this process needs itself
_SPARE: Final = 0.05  # of the container's limit: page tables, sockets, and what grows between two looks
_NO_LIMIT: Final = 1 << 60  # v1 has a number near 2 ** 63 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one child may use, in MB; 0 is no limit. `firm` is one that somebody has set: it holds whatever it costs."""

    most: int = 0
    wall: int = 0
    firm: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What there is: `said` by the setting in MB (0 = no limit, None = nothing said), `container` in bytes."""

    said: int | None = 0
    container: int | None = None

    def share(self, children: int) -> Allowance:
        """Return the part of each of so many children. Too small a container is shared out generously all the same."""
        whole = None if self.container is None else self.container // MEGABYTE
        if self.said is not None:
            wall = _WALL * self.said
            return Allowance(most=self.said, wall=wall if whole is None else min(wall, max(whole, self.said)))
        if whole is None:
            return Allowance()
        most = max(int(whole * (1 - _SPARE) - _SUPERVISOR_MB) // children, LEAST_MB)
        return Allowance(most=most, wall=max(min(_WALL * most, whole), most), firm=False)


def container_bytes(cgroups: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return the tightest memory limit of this process's cgroup and those around it; None where there is none."""
    limits: list[int] = []
    for root, path, version in memory_cgroups(cgroups, own):
        name = "memory.limit_in_bytes" if version == 1 else "memory.max"
        folder = root / path
        texts = [text_of(at / name).strip() for at in (folder, *folder.parents) if at.is_relative_to(root)]
        limits += [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def memory_cgroups(cgroups: Path, own: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield where this process's memory may be accounted: a hierarchy's root, the path in it, its version."""
    for line in text_of(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield cgroups / "memory", path.lstrip("/"), 1
        elif not controllers:
            yield cgroups, path.lstrip("/"), 2
            yield cgroups / "unified", path.lstrip("/"), 2


def text_of(file: Path) -> str:
    """Return what a file says; nothing when it is not there."""
    try:
        return file.read_text()
    except OSError:
        return ""
