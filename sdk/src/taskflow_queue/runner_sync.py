"""Sync tasks, one at a time, in the main thread of the child.

The main thread on purpose: only there does a signal interrupt a blocking system call, so that a time limit or a
cancel reaches a handler that sleeps or reads a socket. The loop of the child lives in the other thread; the two meet
once for whatever has ended in between, because waking the other costs more than a short task.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow_queue import calls
from taskflow_queue.context import enter, leave
from taskflow_queue.errors import Cancelled, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from taskflow_queue.protocol import Done
    from taskflow_queue.runner_attempt import Attempt

_SIGNAL: Final = signal.SIGTERM
_decode = msgspec.json.decode


class SyncLane:
    """The queue before the main thread, and the way to interrupt what it runs."""

    def __init__(
        self, mark: Callable[[bytes, int], None], began: Callable[[Attempt], None], ended: Callable[[], None]
    ) -> None:
        """All are called in the main thread: `mark` and `began` before a task, `ended` when there is an end to take."""
        self._mark = mark
        self._began = began
        self._ended = ended
        self._waiting: SimpleQueue[Attempt] = SimpleQueue()
        self._ends: deque[tuple[Attempt, Done]] = deque()
        self._told = False
        self._armed: Attempt | None = None  # the one whose code runs right now, and may be interrupted
        self._main = threading.main_thread().ident or 0

    def put(self, attempt: Attempt) -> None:
        """Run `attempt` when those before it have ended."""
        self._waiting.put(attempt)

    def interrupt(self, attempt: Attempt, error: type[BaseException]) -> None:
        """Raise `error` in the handler of `attempt` now; from the other thread."""
        attempt.interrupt = error
        signal.pthread_kill(self._main, _SIGNAL)

    def ends(self) -> Iterator[tuple[Attempt, Done]]:
        """Take what has ended; from the other thread."""
        self._told = False  # first, so that what ends from here on is told again
        while self._ends:
            yield self._ends.popleft()

    def serve(self) -> None:
        """Run what comes, for ever; only in the main thread."""
        for number in (_SIGNAL, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while True:
            attempt = self._waiting.get()
            if attempt.take():
                self._mark(*attempt.key)
                self._began(attempt)
                self._ends.append((attempt, self._run(attempt)))
                if not self._told:
                    self._told = True
                    self._ended()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Raise in the handler what it was to be interrupted with; a signal for one that has ended is nothing."""
        attempt = self._armed
        if attempt is not None and attempt.interrupt is not None:
            error, attempt.interrupt = attempt.interrupt, None
            raise error

    def _run(self, attempt: Attempt) -> Done:
        try:
            return self._call(attempt)
        except BaseException as error:  # noqa: BLE001 - also SystemExit: the child outlives what a handler raises
            self._armed = None
            return attempt.failed(error)

    def _call(self, attempt: Attempt) -> Done:
        args, kwargs = calls.arguments(_decode(attempt.run.payload))
        token = enter(attempt.context)
        value: Any = None
        try:
            # The signal may fall anywhere between these lines; until `_armed` is None again it raises here, and
            # `_run` tells it as what interrupted the handler.
            self._armed = attempt
            attempt.begin()
            if attempt.stopped is not None:
                raise TimedOut if attempt.stopped == "timed_out" else Cancelled
            value = attempt.task.function(*args, **kwargs)
        finally:
            self._armed = None
            leave(token)
        return attempt.returned(value)
