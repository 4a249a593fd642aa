"""The work: what is submitted, and whether what comes back is what a computation here says."""

from __future__ import annotations

import queue
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.demo.tasks import slow
from examples.wordcount import count
from taskflow_queue.errors import ResultTimeout, TaskFlowError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskflow_queue import Client, Handle

LEAST_FILES = 1500
COLLECTORS = 4  # and one more for each slow task, or these would hide what is done meanwhile
SLOW_TASKS, SLOW_SECONDS = 20, 8.0


def sources() -> list[str]:
    """Source files of the running interpreter's standard library, and of installed packages if these are too few."""
    library = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    found = [path for path in sorted(library.rglob("*.py")) if not {"site-packages", "dist-packages"} & set(path.parts)]
    if len(found) < LEAST_FILES:
        found += sorted(packages.rglob("*.py"))[: LEAST_FILES - len(found)]
    return [str(path) for path in found if path.is_file()]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task, and how to know its result without TaskFlow."""

    handle: Handle[Any]
    what: str
    expected: Callable[[], Any]


class Work:
    """Submits in one thread and collects in others, so that the main one is free to show and to break things.

    `spread` is the seconds over which submissions are spread, 0 for as fast as it goes; slow tasks go with them.
    """

    def __init__(self, client: Client, paths: Sequence[str], *, spread: float, deadline: float) -> None:
        self._client = client
        self._paths = paths
        self._spread = spread
        self._end = time.monotonic() + deadline
        self._queue: queue.SimpleQueue[Submitted | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.total = len(paths) + (SLOW_TASKS if spread else 0)
        self.submitted = 0
        self.completed = 0
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self._collectors = COLLECTORS + (SLOW_TASKS if spread else 0)
        self._threads = [threading.Thread(target=self._submit, daemon=True)]
        self._threads += [threading.Thread(target=self._collect, daemon=True) for _ in range(self._collectors)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _submit(self) -> None:
        try:
            for paths, values in self._slices():
                files = count.options(client=self._client).map(paths)
                naps = slow.options(client=self._client).map([SLOW_SECONDS] * len(values), values)
                self.submitted += len(files) + len(naps)
                for value, handle in zip(values, naps, strict=True):
                    self._queue.put(Submitted(handle, f"slow {value}", lambda value=value: value))  # type: ignore[misc]
                for path, handle in zip(paths, files, strict=True):
                    self._queue.put(Submitted(handle, path, lambda path=path: count(path)))  # type: ignore[misc]
        except TaskFlowError as refused:
            self.lost.append(f"not submitted: {refused}")
        finally:
            for _ in range(self._collectors):
                self._queue.put(None)

    def _slices(self) -> list[tuple[Sequence[str], list[int]]] | Any:
        """What to submit together: all at once, or a slice a second."""
        if not self._spread:
            yield self._paths, []
            return
        began, steps = time.monotonic(), int(self._spread)
        for step in range(steps):
            paths = self._paths[len(self._paths) * step // steps : len(self._paths) * (step + 1) // steps]
            values = list(range(SLOW_TASKS * step // steps, SLOW_TASKS * (step + 1) // steps))
            yield paths, values
            time.sleep(max(began + step + 1 - time.monotonic(), 0))

    def _collect(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                outcome = task.handle.wait(max(self._end - time.monotonic(), 0.1))
            except (ResultTimeout, TaskFlowError) as missing:
                with self._lock:
                    self.lost.append(f"{task.what}: {missing}")
                continue
            expected = task.expected()
            with self._lock:
                if outcome.status != "COMPLETED":
                    self.lost.append(f"{task.what}: {outcome.status}, {outcome.error}")
                    continue
                self.completed += 1
                if outcome.result != expected:
                    self.wrong.append(f"{task.what}: {outcome.result} instead of {expected}")


def explain(work: Work) -> None:
    """Say what went wrong, if anything, on stderr."""
    for line in [*work.lost[:10], *work.wrong[:10]]:
        print(line, file=sys.stderr)
