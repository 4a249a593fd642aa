"""Processes by identity: a pid and when it began, since a pid alone is reused."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import psutil

from core.clock import monotonic, pause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_STEP: Final = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this machine, whether it still lives or not."""

    pid: int
    began: float

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The living process of this pid; one that waits to be reaped counts as gone."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, process.create_time())
        except psutil.Error:
            return None

    @classmethod
    def me(cls) -> Process:
        """This process."""
        return cls(os.getpid(), psutil.Process().create_time())

    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self

    def kill(self, signal: int) -> None:
        """Send a signal, unless it is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal)

    def gone(self, seconds: float) -> bool:
        """Wait that long for it to end; whether it did."""
        return wait_until(lambda: not self.alive(), seconds)


def save(path: Path, process: Process, **more: int | str) -> None:
    """Write a process down, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({**asdict(process), **more}), encoding="utf-8")
    partial.replace(path)


def load(path: Path) -> tuple[Process | None, dict[str, int | str]]:
    """What `save` wrote, if it is there; a damaged file counts as none."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Process(int(kept.pop("pid")), float(kept.pop("began"))), kept
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, {}


def wait_until(ready: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again for at most that long; the last answer."""
    end = monotonic() + seconds
    while not ready():
        if monotonic() >= end:
            return False
        pause(_STEP)
    return True


def in_directory(name: str, directory: Path) -> list[Process]:
    """Living processes of that name whose working directory it is: how a server's leftovers are recognised."""
    found, real = [], str(directory.resolve())
    for process in psutil.process_iter(["name"]):
        if process.info["name"] != name:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.cwd() == real and (living := Process.of(process.pid)):
                found.append(living)
    return found
