"""The main program of a worker's children: `python -m taskflow_queue.runner`. All are forked from one process.

Each imports the user's modules, says which tasks they define, and runs what the supervisor sends: sync tasks in the
main thread, async ones on a loop in a second one. It knows no database and no secret, and ends with its supervisor.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from taskflow_queue import protocol as wire
from taskflow_queue import runner_forks, runner_guard, runner_logs
from taskflow_queue import runner_outcomes as outcomes
from taskflow_queue.errors import Cancelled, SoftTimeout, TimedOut
from taskflow_queue.importing import importing
from taskflow_queue.runner_async import AsyncLane
from taskflow_queue.runner_attempt import Attempt
from taskflow_queue.runner_sync import SyncLane
from taskflow_queue.task import Task, registry

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_TELL_SECONDS: Final = 0.25  # progress and logs of running tasks are told at most this often
_READ: Final = 256 * 1024


class Runner(asyncio.Protocol):
    """The child's end of the socket, and what runs behind it. Everything here is the loop's thread, unless it says."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tasks: dict[str, Task[..., Any]],
        slots: int,
        marker: runner_guard.Marker,
    ) -> None:
        """`slots`: how many async tasks run at once."""
        self._loop = loop
        self._tasks = tasks
        self._decoder = wire.ChildDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._out: list[wire.ToSupervisor] = []
        self._attempts: dict[tuple[bytes, int], Attempt] = {}
        self._news: deque[Attempt] = deque()
        self._telling = False
        self._stopping = False
        self.sync_lane = SyncLane(marker.began, self._sync_began, self._sync_ended)
        self._async_lane = AsyncLane(loop, slots, marker.began_async, self._limit, self._ended)

    # ── the socket ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Do what the supervisor says."""
        for message in self._decoder.feed(data):
            match message:
                case wire.Run():
                    self._start(message)
                case wire.Cancel():
                    self._cancel((message.id, message.attempt))
                case wire.Ping():
                    self._send(wire.Pong(message.n))
                case wire.Recall(sync=sync):
                    self._recall(sync=sync)
                case wire.Stop():
                    self._stopping = True
                    self._exit_when_idle()
                case wire.Hello():
                    pass

    def connection_lost(self, _exc: Exception | None) -> None:
        """The supervisor is gone: so is this process, whatever runs in it."""
        os._exit(0)

    def _send(self, message: wire.ToSupervisor) -> None:
        """Say it with everything else that is said in this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(message)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(wire.encode(out))

    def _exit_when_idle(self) -> None:
        if self._stopping and not self._attempts and self._transport is not None:
            self._flush()
            self._transport.close()  # which writes what is left, then ends in connection_lost

    # ── attempts ──

    def _start(self, run: wire.Run) -> None:
        task = self._tasks.get(run.type)
        if task is None:
            self._send(outcomes.refused(run, f"there is no task {run.type!r} here", fatal=False))
            return
        attempt = Attempt(run, task, self._tell)
        self._attempts[attempt.key] = attempt
        if task.is_async:
            self._async_lane.put(attempt)
        else:
            self.sync_lane.put(attempt)

    def _recall(self, *, sync: bool) -> None:
        syncs = (attempt for attempt in self._attempts.values() if not attempt.task.is_async)
        for attempt in [one for one in syncs if one.take()] if sync else self._async_lane.recall():
            self._ended(attempt, outcomes.released(attempt.run))

    def _limit(self, attempt: Attempt) -> None:
        """Let its limits, if any, run from now on; a sync one may have ended before this thread has come to it."""
        run = attempt.run
        if limited(run) and not attempt.context.ended:
            limits = ((run.soft_timeout, self._soft_limit), (run.timeout, self._hard_limit))
            attempt.timers = tuple(
                self._loop.call_later(seconds, reached, attempt) for seconds, reached in limits if seconds is not None
            )

    def _soft_limit(self, attempt: Attempt) -> None:
        if attempt.task.is_async:
            self._async_lane.soften(attempt)
        else:
            self.sync_lane.interrupt(attempt, SoftTimeout)

    def _hard_limit(self, attempt: Attempt) -> None:
        attempt.stopped = "timed_out"
        if attempt.task.is_async:
            self._async_lane.stop(attempt)
        else:
            self.sync_lane.interrupt(attempt, TimedOut)

    def _cancel(self, key: tuple[bytes, int]) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            return
        attempt.context.cancel_wanted = True
        attempt.stopped = attempt.stopped or "cancelled"
        if attempt.task.is_async:
            self._async_lane.stop(attempt)
        else:
            attempt.interrupt = Cancelled  # raised when a SIGTERM follows; until then it was asked kindly

    def _sync_began(self, attempt: Attempt) -> None:
        """A sync task begins: its time runs from here. In the main thread."""
        if limited(attempt.run):
            self._loop.call_soon_threadsafe(self._limit, attempt)

    def _sync_ended(self) -> None:
        """Have the ends of sync tasks taken over. In the main thread."""
        self._loop.call_soon_threadsafe(self._take_ends)

    def _take_ends(self) -> None:
        for attempt, done in self.sync_lane.ends():
            self._ended(attempt, done)

    def _ended(self, attempt: Attempt, done: wire.Done) -> None:
        for timer in attempt.timers:
            timer.cancel()
        attempt.context.end()
        self._attempts.pop(attempt.key, None)
        self._send(done)
        if self._stopping:
            self._exit_when_idle()

    # ── what running tasks say ──

    def _tell(self, attempt: Attempt) -> None:
        """Note that `attempt` has news; called from any thread."""
        self._news.append(attempt)
        if not self._telling:
            self._telling = True
            self._loop.call_soon_threadsafe(self._loop.call_later, _TELL_SECONDS, self._tell_all)

    def _tell_all(self) -> None:
        self._telling = False
        while self._news:
            attempt = self._news.popleft()
            context, key = attempt.context, attempt.key
            context.taken()
            if context.ended:
                continue  # its Done has said everything
            if (progress := context.take_progress()) is not None:
                fraction, note = progress
                self._send(wire.Progress(*key, fraction, outcomes.clean(note, len(note))))
            if text := context.take_logs():
                self._send(wire.Logs(*key, outcomes.clean(text, 2 * wire.MOST_LOGS)))


def limited(run: wire.Run) -> bool:
    """Whether a task has a time limit."""
    return run.timeout is not None or run.soft_timeout is not None


def _definition(task: Task[..., Any]) -> wire.Definition:
    return wire.Definition(
        task.name,
        task.queue,
        task.retry.max_attempts,
        task.timeout,
        task.soft_timeout,
        task.retry.initial,
        task.retry.factor,
        task.retry.cap,
        task.is_async,
    )


def _hello(end: socket.socket) -> wire.Hello:
    """Wait for the first message; the supervisor sends no other before it has the answer."""
    decoder = wire.ChildDecoder()
    while True:
        data = end.recv(_READ)
        if not data:
            os._exit(0)
        messages = decoder.feed(data)
        if messages:
            if not isinstance(messages[0], wire.Hello) or messages[0].version != wire.VERSION:
                raise wire.FrameError(f"the first message must be a Hello of version {wire.VERSION}")
            return messages[0]


def _import(modules: list[str]) -> dict[str, Task[..., Any]]:
    if "" not in sys.path and (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - pathlib costs a start 5 ms
        sys.path.insert(0, here)
    for module in modules:
        with importing(module):
            importlib.import_module(module)
    gc.freeze()  # what was imported is no garbage
    return registry()


def _loops() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - taken when the user's environment has it
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _serve(loop: asyncio.AbstractEventLoop, runner: Runner, end: socket.socket) -> None:
    """Be the loop's thread."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(loop.connect_accepted_socket(lambda: runner, end))
        loop.run_forever()
    finally:
        os._exit(1)  # without its loop a child is of no use, and the supervisor makes another one


def main() -> None:
    """Run until the supervisor goes away."""
    new_loop = _loops()
    end, mark, wall = runner_forks.serve()
    marker = runner_guard.Marker(mark)
    runner_guard.wall_in(wall)
    runner_guard.go_first()
    runner_logs.install()
    hello = _hello(end)
    try:
        tasks = _import(hello.modules)
    except BaseException as wrong:  # noqa: BLE001 - a module may raise SystemExit as well as anything else
        end.sendall(wire.encode([wire.Broken(outcomes.trace_of(wrong))]))
        os._exit(1)
    end.sendall(wire.encode([wire.Ready(wire.VERSION, [_definition(task) for task in tasks.values()])]))
    loop = new_loop()
    runner = Runner(loop, tasks, hello.slots, marker)
    end.settimeout(0)
    threading.Thread(target=_serve, args=(loop, runner, end), name="taskflow-loop", daemon=True).start()
    runner.sync_lane.serve()


if __name__ == "__main__":
    main()
