"""Async tasks, many at once, on the loop of the child: one asyncio task each, never more; those too many wait."""

from __future__ import annotations

import asyncio
import sys
import types
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow_queue import calls
from taskflow_queue import runner_outcomes as outcomes
from taskflow_queue.context import running
from taskflow_queue.errors import SoftTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from taskflow_queue.protocol import Done
    from taskflow_queue.runner_attempt import Attempt

_decode = msgspec.json.decode
_EAGER: Final[dict[str, Any]] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class AsyncLane:
    """Starts async tasks in the order in which they come, and stops them. All in the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slots: int,
        mark: Callable[[int], None],
        began: Callable[[Attempt], None],
        ended: Callable[[Attempt, Done], None],
    ) -> None:
        """`slots`: how many run at once. `mark` takes the place of a task, and `began` the task, before it starts."""
        self._loop = loop
        self._slots = self._free = slots
        self._mark = mark
        self._began = began
        self._ended = ended
        self._came = 0
        self._begun = 0  # the place of the one that started last
        self._suspects = 0, 0  # after a cancel that nobody asked for: the last place that it may concern, and how many
        self._waiting: deque[tuple[int, Attempt]] = deque()
        self._woken = False

    def put(self, attempt: Attempt) -> None:
        """Start `attempt`, or have it wait for those before it."""
        self._came += 1
        if self._free and not self._waiting:
            self._start(self._came, attempt)
        else:
            self._waiting.append((self._came, attempt))

    def recall(self) -> list[Attempt]:
        """Take back what has not started."""
        waiting = [attempt for _, attempt in self._waiting]
        self._waiting.clear()
        return waiting

    def _start(self, place: int, attempt: Attempt) -> None:
        """From Python 3.12 on, the first step is run at once."""
        self._free -= 1
        self._begun = place
        self._mark(place)
        self._began(attempt)
        running.set(attempt.context)  # the asyncio task takes a copy of this context
        guard = self._guard(attempt, place)
        guard.send(None)  # into its `try`: a task that is cancelled before its first step still tells its end
        attempt.asyncio_task = asyncio.Task(guard, loop=self._loop, **_EAGER)

    def _go_on(self) -> None:
        self._woken = False
        while self._free and self._waiting:
            self._start(*self._waiting.popleft())

    def stop(self, attempt: Attempt) -> None:
        """Cancel `attempt`; one that has not started yet sees it at its start."""
        if attempt.started and attempt.asyncio_task is not None:
            attempt.asyncio_task.cancel()

    def soften(self, attempt: Attempt) -> None:
        """Raise SoftTimeout in `attempt`."""
        attempt.softly = True
        self.stop(attempt)

    async def _guard(self, attempt: Attempt, place: int) -> None:
        """Run the handler and tell its end; nothing leaves this coroutine, whatever the handler raises."""
        try:
            await _first_step()
            attempt.begin()
            if attempt.stopped is not None:
                raise asyncio.CancelledError  # noqa: TRY301 - the same end as a cancel a moment later
            args, kwargs = calls.arguments(_decode(attempt.run.payload))
            coroutine = attempt.task.function(*args, **kwargs)
            value = await (coroutine if attempt.run.soft_timeout is None else _steered(coroutine, attempt))
            done = attempt.returned(value)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: the child outlives what a handler raises
            done = self._failed(attempt, place, error)
        self._free += 1
        if self._waiting and not self._woken:
            self._woken = True
            self._loop.call_soon(self._go_on)
        self._ended(attempt, done)

    def _failed(self, attempt: Attempt, place: int, error: BaseException) -> Done:
        """Return the Done of an attempt that raised; a cancel that nobody asked for may be another task's doing."""
        if attempt.stopped is not None or not isinstance(error, asyncio.CancelledError):
            return attempt.failed(error)
        if not attempt.started:
            return outcomes.released(attempt.run)
        last, company = self._suspects
        now = self._slots - self._free
        if now > 1 and (place > last or now > company):
            self._suspects = last, company = self._begun, now
        # Those that one handler cancelled end one after the other: the last of them had as much company as the first.
        return attempt.failed(error) if place > last else outcomes.suspect(attempt.failed(error), company)


@types.coroutine
def _first_step() -> Generator[None, Any, None]:
    """Stop once, before anything is done."""
    yield


@types.coroutine
def _steered(coroutine: Coroutine[Any, Any, Any], attempt: Attempt) -> Generator[Any, Any, Any]:
    """Drive `coroutine`, and turn the cancel that stands for the soft limit into SoftTimeout.

    asyncio knows only one thing to raise in a task from outside. This stands between the two and exchanges it.
    """
    error: BaseException | None = None
    while True:
        try:
            waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        try:
            yield waits_for
        except asyncio.CancelledError as cancel:
            error = cancel
            if attempt.softly:
                attempt.softly = False
                if attempt.stopped is None:
                    error = SoftTimeout(f"its soft limit of {attempt.run.soft_timeout:g} s has passed")
                    if (task := asyncio.current_task()) is not None:
                        task.uncancel()
        except BaseException as other:  # noqa: BLE001 - GeneratorExit and whatever a future holds go through as they are
            error = other
