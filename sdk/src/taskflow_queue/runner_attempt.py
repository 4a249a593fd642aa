"""One attempt inside a child: what was asked, what it says, and why it was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

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
        "_tell",
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
            task_id=str(UUID(bytes=run.id)),
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
        self.asyncio_task: asyncio.Task[None] | None = None
        self.timers: tuple[asyncio.TimerHandle, ...] = ()

    def returned(self, value: Any) -> Done:
        """Return its Done after it came back with `value`."""
        return outcomes.returned(self.run, value, self._logs())

    def failed(self, error: BaseException) -> Done:
        """Return its Done after it raised."""
        return outcomes.failed(self.run, error, self._logs(), stopped=self.stopped, gives_up=self.task.gives_up)

    @property
    def key(self) -> tuple[bytes, int]:
        """What tells it from every other attempt, of the same task too."""
        return self.run.id, self.run.attempt

    def _news(self) -> None:
        self._tell(self)

    def _logs(self) -> str:
        return outcomes.clean(self.context.take_logs(), 2 * MOST_LOGS)
