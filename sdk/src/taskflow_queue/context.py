"""What a running task can know and say: its id and attempt, progress, log lines, whether it shall stop.

Owns the bounds of what a task says. Does not send it: the runner takes it from here when there is time.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from taskflow_queue.errors import SettingError
from taskflow_queue.protocol import MOST_LOGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from taskflow_queue.protocol import Run

T = TypeVar("T")
_MOST_NOTE: Final = 200
_CUT: Final = "\n… the log is cut here: an attempt keeps 64 KiB\n"
running: ContextVar[Context] = ContextVar("taskflow_task")


class Context:
    """The running attempt of a task, as `current()` gives it to the task's own code."""

    # Thousands of these are made in a second: what is the same in all of them at first belongs to the class.
    cancel_wanted = False
    ended = False
    _marked = False
    _fraction: float | None = None
    _note = ""
    _parts: list[str] | None = None
    _room = MOST_LOGS

    def __init__(self, run: Run, tell: Callable[[], None] | None = None) -> None:
        """`tell` is called, from any thread, when there is something new to take."""
        self._run = run
        self._tell = tell

    @property
    def task_id(self) -> str:
        """The id of the task, the same in all attempts."""
        return str(UUID(bytes=self._run.id))

    @property
    def attempt(self) -> int:
        """Which start of the task this is: the first is 1."""
        return self._run.attempt

    @property
    def type(self) -> str:
        """What the task is called."""
        return self._run.type

    @property
    def queue(self) -> str:
        """The queue it was submitted to."""
        return self._run.queue

    @property
    def priority(self) -> str:
        """How urgent it is."""
        return self._run.priority

    @property
    def retry_count(self) -> int:
        """How many failures it has been charged with."""
        return self._run.retry_count

    @property
    def created_at(self) -> str:
        """When the task was submitted, in UTC and ISO 8601."""
        return datetime.fromtimestamp(self._run.created_at, UTC).isoformat()

    @property
    def idempotency_key(self) -> str:
        """The same in all attempts: give it to whatever must happen only once."""
        return self.task_id

    def progress(self, fraction: float, note: str = "") -> None:
        """Say how far the task has come: 0 to 1, and a word about it. Cheap: call it as often as you like."""
        if not math.isfinite(fraction):
            message = f"progress is a number from 0 to 1, not {fraction}"
            raise ValueError(message)
        self._fraction = min(max(float(fraction), 0.0), 1.0)
        self._note = str(note)[:_MOST_NOTE]
        self._mark()

    def log(self, *words: object) -> None:
        """Write a line to the log of this attempt, as `print` and `logging` in a task do."""
        self.write(" ".join(map(str, words)) + "\n")

    def write(self, text: str) -> None:
        """Add text to the log of this attempt, up to its bound."""
        if self._room <= 0:
            return
        if len(text) > self._room:
            text = text[: self._room] + _CUT
            self._room = 0
        else:
            self._room -= len(text)
        parts = self._parts
        if parts is None:
            parts = self._parts = []
        parts.append(text)
        self._mark()

    def cancel_requested(self) -> bool:
        """Whether somebody wants this task to stop."""
        return self.cancel_wanted

    def track(self, items: Iterable[T], *, total: int | None = None) -> Iterator[T]:
        """Go through `items` and report progress; stop the task between two items when it was cancelled."""
        from taskflow_queue.errors import Cancelled  # noqa: PLC0415 - only who tracks needs it

        if total is None and isinstance(items, Sized):
            total = len(items)
        for count, item in enumerate(items):
            if self.cancel_wanted:
                raise Cancelled("it was asked to stop")
            if total:
                self.progress(count / total, f"{count} of {total}")
            yield item
        if total:
            self.progress(1.0, f"{total} of {total}")

    def take_logs(self) -> str:
        """Return what was written since the last time: for the runner."""
        if self._parts is None:
            return ""
        parts, self._parts = self._parts, None
        return "".join(parts)

    def take_progress(self) -> tuple[float, str] | None:
        """Return the newest progress unless it was taken already: for the runner."""
        fraction, self._fraction = self._fraction, None
        return None if fraction is None else (fraction, self._note)

    def taken(self) -> None:
        """Tell the next news again: the runner says so before it takes."""
        self._marked = False

    def end(self) -> None:
        """Tell nothing from now on, and hold no one who holds this: for the runner. A cycle waits for the collector."""
        self.ended = True
        self._tell = None

    def _mark(self) -> None:
        tell = self._tell  # another thread may end this attempt meanwhile
        if not self._marked and tell is not None:
            self._marked = True
            tell()


def current() -> Context:
    """Return the context of the running task. Raises SettingError outside of one."""
    context = running.get(None)
    if context is None:
        raise SettingError("no task is running here", fix="call this inside of a task that a worker runs")
    return context


def progress(fraction: float, note: str = "") -> None:
    """Say how far the running task has come: 0 to 1, and a word about it."""
    current().progress(fraction, note)


def log(*words: object) -> None:
    """Write a line to the log of the running attempt."""
    current().log(*words)


def cancel_requested() -> bool:
    """Whether somebody wants the running task to stop."""
    return current().cancel_requested()


def track(items: Iterable[T], *, total: int | None = None) -> Iterator[T]:
    """Go through `items` and report the running task's progress."""
    return current().track(items, total=total)


def enter(context: Context) -> Any:
    """Make `context` the running one: for the runner, and for the eager runs of `taskflow_queue.testing`."""
    return running.set(context)


def leave(token: Any) -> None:
    """Undo `enter`."""
    running.reset(token)
