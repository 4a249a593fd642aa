"""Tasks in memory, for tests: the same retry and lifecycle rules as on a server, and a clock that nobody waits for.

>>> with eager() as queue:
...     assert count.submit("README.md").result() == {"lines": 1}
...     assert queue.tasks[0].status == "COMPLETED"

A submitted task runs at once, and again after its failures; the virtual clock jumps over the waits between. Arguments
and results travel as JSON, with a server's limits of size. Time limits are not enforced: nothing here takes time.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from taskflow_queue import clock
from taskflow_queue.client import Client, stop_using, use
from taskflow_queue.eager_server import answer
from taskflow_queue.eager_task import EagerAttempt, EagerTask, run
from taskflow_queue.task import Task, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskflow_queue.wire import Answer, Call

__all__ = ["EagerAttempt", "EagerQueue", "EagerTask", "eager"]

_URGENCY: Final = {"HIGH": 0, "NORMAL": 1, "LOW": 2}
_MOST_ATTEMPTS: Final = 1_000  # of one task: a RetryLater that never ends is a mistake, and a test must end


@contextmanager
def eager(*, hold: bool = False, seed: int = 0) -> Iterator[EagerQueue]:
    """Let every submission of this process go to a queue in memory meanwhile.

    With `hold`, tasks wait until `queue.drain()`, `queue.advance(seconds)` or somebody asks for a result, and then
    run in the order of a server: priority, then age. `seed` is for the jitter of the back-off.
    """
    queue = EagerQueue(hold=hold, seed=seed)
    client = Client(transport=queue)
    with clock.wall(queue.now):
        use(client)
        try:
            yield queue
        finally:
            stop_using(client)


class EagerQueue:
    """A server in memory, for one thread. `tasks` are all that were submitted, in that order."""

    at_once = 1

    def __init__(self, *, hold: bool = False, seed: int = 0) -> None:
        self.tasks: list[EagerTask] = []
        self.hold = hold
        self.keys: dict[str, list[str]] = {}
        self._start = clock.now()
        self._elapsed = 0.0
        self._random = random.Random(seed)  # noqa: S311 - jitter is no secret

    def now(self) -> datetime:
        """The virtual wall clock."""
        return self._start + timedelta(seconds=self._elapsed)

    def find(self, task_id: str) -> EagerTask | None:
        """Return a task by its id."""
        return next((one for one in self.tasks if one.id == task_id), None)

    def add(self, body: dict[str, Any], payload: bytes) -> EagerTask:
        """Take a submission, as its JSON says it."""
        now = self.now()
        seq = len(self.tasks) + 1
        at = body.get("scheduled_at")
        expires = body.get("expires_at")
        row = EagerTask(
            id=str(UUID(int=seq)),
            type=body["type"],
            payload=payload,
            created_at=now,
            seq=seq,
            due=now if at is None else datetime.fromisoformat(at),
            queue=body.get("queue", "default"),
            priority=body.get("priority", "NORMAL"),
            title=body.get("title"),
            expires=None if expires is None else datetime.fromisoformat(expires),
            timeout=body.get("timeout_seconds"),
            most_attempts=body.get("max_attempts"),
            concurrency_key=body.get("concurrency_key"),
        )
        row.status = "PENDING" if row.due > now else "QUEUED"
        self.tasks.append(row)
        return row

    def settle(self, row: EagerTask) -> None:
        """Run a task that is due, and its retries, until it ended or waits for another time by its own wish."""
        if self.hold or row.status != "QUEUED":
            return
        while row.status in {"QUEUED", "PENDING"}:
            if not self._step(row.due, only=row):
                return

    def drain(self) -> None:
        """Run everything that can be run, whenever it is due."""
        while self._step(None):
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass, and run what becomes due meanwhile."""
        until = self.now() + timedelta(seconds=seconds)
        while self._step(until):
            pass
        self._elapsed = max(self._elapsed, (until - self._start).total_seconds())

    def wait_for(self, row: EagerTask, seconds: float) -> bool:
        """Let time pass until a task ended, for at most `seconds`; False when it never will by itself."""
        until = self.now() + timedelta(seconds=seconds)
        while not row.ended:
            if not self._step(until):
                waits = any(one.status == "PENDING" for one in self.tasks)
                self._elapsed = max(self._elapsed, (until - self._start).total_seconds())
                return waits
        return True

    def known(self, row: EagerTask) -> bool:
        """Whether the function of a task is defined in this process."""
        return row.type in registry()

    def _step(self, until: datetime | None, only: EagerTask | None = None) -> bool:
        """Run the next task that is due by `until`; the clock jumps to when it is. False when there is none."""
        waiting = [one for one in self.tasks if one.status in {"QUEUED", "PENDING"} and (only is None or one is only)]
        ready = [one for one in waiting if one.due <= self.now()]
        if not any(map(self.known, ready)):
            later = [one.due for one in waiting if one.due > self.now() and (until is None or one.due <= until)]
            if not later:
                self._expire()
                return False
            self._elapsed = (min(later) - self._start).total_seconds()
            ready = [one for one in waiting if one.due <= self.now()]
        for one in ready:
            one.move("promote")
        self._expire()
        able = [one for one in ready if one.status == "QUEUED" and self.known(one)]
        if able:
            self._attempt(min(able, key=lambda one: (_URGENCY[one.priority], one.seq)))
        return True

    def _expire(self) -> None:
        for one in self.tasks:
            if one.expires is not None and one.expires <= self.now():
                one.move("expire")

    def _attempt(self, row: EagerTask) -> None:
        task: Task[..., Any] = registry()[row.type]
        row.move("claim")
        row.attempt += 1
        if row.attempt > _MOST_ATTEMPTS:
            raise RuntimeError(f"{row.type} was started {_MOST_ATTEMPTS} times and goes on: does its RetryLater end?")
        started = self.now()
        done = run(task, row)
        delay = row.settle(task, done, self._random.random())
        row.attempts.append(
            EagerAttempt(row.attempt, started, self.now(), done.kind, done.error_type, done.message, done.logs)
        )
        if row.status == "PENDING":
            row.due = self.now() + timedelta(seconds=delay)

    # ── the transport of a client ──

    def send(self, call: Call) -> Answer:
        """Answer a call of the client's."""
        return answer(self, call)

    async def send_async(self, call: Call) -> Answer:
        """Answer a call of the client's."""
        return answer(self, call)

    def monotonic(self) -> float:
        """The virtual clock."""
        return self._elapsed

    def close(self) -> None:
        """There is nothing to close."""

    async def close_async(self) -> None:
        """There is nothing to close."""

    def __repr__(self) -> str:
        return "the queue in memory"
