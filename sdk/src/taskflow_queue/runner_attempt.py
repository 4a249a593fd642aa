"""One attempt inside a child: what was asked, what it says, and why it was interrupted."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from taskflow_queue import runner_guard
from taskflow_queue import runner_outcomes as outcomes
from taskflow_queue.context import Context
from taskflow_queue.protocol import MOST_LOGS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from taskflow_queue.protocol import Done, Run
    from taskflow_queue.task import Task


class Attempt:
    """A task that runs here. `stopped` is None, "timed_out" or "cancelled": why it was told to stop."""

    stopped: str | None = None
    softly = False  # an async one: its next CancelledError stands for SoftTimeout
    interrupt: type[BaseException] | None = None  # a sync one: what a signal shall raise in it
    started = False
    _began = 0.0
    asyncio_task: asyncio.Task[None] | None = None
    timers: tuple[asyncio.TimerHandle, ...] = ()

    def __init__(self, run: Run, task: Task[..., Any], tell: Callable[[Attempt], None]) -> None:
        self.run = run
        self.task = task
        self._tell = tell
        self.key = run.id, run.attempt  # what tells it from every other attempt, of the same task too
        self.context = Context(run, self._news)
        self._ticket = [None]  # whoever takes it decides what becomes of a sync attempt: one thread runs, one recalls

    def take(self) -> bool:
        """Have the attempt to oneself, to begin it or to give it back; False when the other thread was quicker."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def begin(self) -> None:
        """Note that its handler runs from now on."""
        self.started = True
        self._began = perf_counter()

    def returned(self, value: Any) -> Done:
        """Return its Done after it came back with `value`."""
        return outcomes.returned(self.run, value, self._logs(), perf_counter() - self._began)

    def failed(self, error: BaseException) -> Done:
        """Return its Done after it raised."""
        seconds = perf_counter() - self._began if self.started else 0.0
        done = outcomes.failed(
            self.run, error, self._logs(), seconds=seconds, stopped=self.stopped, gives_up=self.task.gives_up
        )
        if isinstance(error, MemoryError) and runner_guard.walled():
            return msgspec.structs.replace(done, kind="out_of_memory")
        return done

    def _news(self) -> None:
        self._tell(self)

    def _logs(self) -> str:
        logs = self.context.take_logs()
        return outcomes.clean(logs, 2 * MOST_LOGS) if logs else logs
