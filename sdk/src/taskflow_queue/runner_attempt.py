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

    __slots__ = (
        "_began",
        "_tell",
        "_ticket",
        "asyncio_task",
        "context",
        "interrupt",
        "run",
        "softly",
        "started",
        "stopped",
        "task",
        "timers",
    )

    def __init__(self, run: Run, task: Task[..., Any], tell: Callable[[Attempt], None]) -> None:
        self.run = run
        self.task = task
        self._tell = tell
        self.context = Context(
            task_id=run.id,
            attempt=run.attempt,
            type=run.type,
            queue=run.queue,
            priority=run.priority,
            retry_count=run.retry_count,
            created_at=run.created_at,
            tell=self._news,
        )
        self.stopped: str | None = None
        self.softly = False  # an async one: its next CancelledError stands for SoftTimeout
        self.interrupt: type[BaseException] | None = None  # a sync one: what a signal shall raise in it
        self.started = False
        self._began = 0.0
        self._ticket = [None]  # whoever takes it decides what becomes of a sync attempt: one thread runs, one recalls
        self.asyncio_task: asyncio.Task[None] | None = None
        self.timers: tuple[asyncio.TimerHandle, ...] = ()

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

    @property
    def key(self) -> tuple[bytes, int]:
        """What tells it from every other attempt, of the same task too."""
        return self.run.id, self.run.attempt

    def _news(self) -> None:
        self._tell(self)

    def _logs(self) -> str:
        logs = self.context.take_logs()
        return outcomes.clean(logs, 2 * MOST_LOGS) if logs else logs
