"""The way of submits into PostgreSQL: requests that arrive while a flush is in flight form the next one.

There is no timer: alone, a request is written at once; in a crowd, hundreds share a commit. A flush is a task of its
own, so a client that hangs up cancels nothing of anybody's. When the data of a row are refused, the flush is halved
until the row is alone with its error. Answers go out after the commit, hints to Redis after the answers.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from core import faults, lookups, telemetry
from core import queue_manager as queue
from core.domain.task import Submission, Submitted
from core.errors import CommitUnknown, Invalid, KeyInProgress, TaskFlowError, Unavailable
from core.pool import Database
from core.verbs.submitting import KeyedAnswer, KeyedOutcome, KeyedRequest

FLUSH_ROWS: Final = 2_000
FLUSH_BYTES: Final = 8 * 1024 * 1024
ROOM_ROWS: Final = 20_000
ROOM_BYTES: Final = 64 * 1024 * 1024
ROW_BYTES: Final = 300  # what a row weighs besides its payload
SETTLE_PAUSES: Final = (0.0, 0.1, 0.3, 1.0, 2.0)  # seconds before each look for what a lost COMMIT did
_MOST_NAMES: Final = 10_000

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Hint = Callable[[Sequence[tuple[Submission, Submitted]]], Awaitable[None]]
log = telemetry.get_logger("api.submitting")


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Asked, Answer]):
    """One request in the waiting room. It is written whole or not at all."""

    asked: Asked
    rows: int
    size: int
    answer: "asyncio.Future[Answer]"

    def resolve(self, answer: Answer) -> None:
        if not self.answer.done():  # else the client has hung up
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


Crowd = Sequence[_Waiting[Asked, Answer]]


class _Flow(Generic[Asked, Answer]):
    """Gathers requests into flushes. `write` answers in order.

    `settle` finds out what a lost COMMIT did: an answer for each, or None where it may still arrive.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        settle: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer | None]]],
    ) -> None:
        self._write = write
        self._settle = settle
        self._room: deque[_Waiting[Asked, Answer]] = deque()
        self._rows = 0
        self._bytes = 0
        self._runner: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def put(self, asked: Asked, rows: int, size: int) -> Answer:
        """Have `asked` written with whatever else is waiting. Raises Unavailable when the room is full."""
        if self._rows + rows > ROOM_ROWS or self._bytes + size > ROOM_BYTES:
            message = "More is being submitted than can be written just now"
            raise Unavailable(message, retry_after=1.0, fix="try again when Retry-After has passed")
        waiting = _Waiting[Asked, Answer](asked, rows, size, asyncio.get_running_loop().create_future())
        self._room.append(waiting)
        self._rows += rows
        self._bytes += size
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await waiting.answer

    async def close(self) -> None:
        """Wait until everything that was put has its answer."""
        while self._runner is not None or self._settling:
            await asyncio.wait([task for task in (self._runner, *self._settling) if task is not None])

    async def _run(self) -> None:
        try:
            while self._room:
                await self._flush(self._next())
        finally:
            self._runner = None

    def _next(self) -> list[_Waiting[Asked, Answer]]:
        crowd: list[_Waiting[Asked, Answer]] = []
        rows = size = 0
        while self._room:
            first = self._room[0]
            if crowd and (rows + first.rows > FLUSH_ROWS or size + first.size > FLUSH_BYTES):
                break
            crowd.append(self._room.popleft())
            rows += first.rows
            size += first.size
        self._rows -= rows
        self._bytes -= size
        return crowd

    async def _flush(self, crowd: Crowd[Asked, Answer]) -> None:
        try:
            answers = await self._write([waiting.asked for waiting in crowd])
        except Exception as error:  # noqa: BLE001 - whatever it is, each request in the crowd gets an answer
            await self._failed(crowd, error)
        else:
            for waiting, answer in zip(crowd, answers, strict=True):
                waiting.resolve(answer)

    async def _failed(self, crowd: Crowd[Asked, Answer], error: Exception) -> None:
        refusal = _refusal(error)
        if refusal is not None and len(crowd) > 1:
            middle = len(crowd) // 2
            await self._flush(crowd[:middle])
            await self._flush(crowd[middle:])
        elif refusal is None and isinstance(error, CommitUnknown):
            # Not awaited: who comes next need not wait until it is known.
            task = asyncio.create_task(self._settle_all(crowd))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        else:
            if refusal is None and not isinstance(error, TaskFlowError):
                log.error("flush failed", rows=sum(waiting.rows for waiting in crowd), exc_info=error)
            for waiting in crowd:
                waiting.fail(refusal or error)

    async def _settle_all(self, crowd: Crowd[Asked, Answer]) -> None:
        for pause in SETTLE_PAUSES:
            await asyncio.sleep(pause)
            await self._look_after([waiting for waiting in crowd if not waiting.answer.done()])
        for waiting in crowd:
            waiting.fail(unknown())

    async def _look_after(self, crowd: Crowd[Asked, Answer]) -> None:
        """Look once for all of them: one after the other, the last would wait for the pauses of all before it."""
        if not crowd:
            return
        try:
            answers = await self._settle([waiting.asked for waiting in crowd])
        except Exception as error:  # noqa: BLE001 - handed to who asked
            refusal = _refusal(error)
            if refusal is not None and len(crowd) > 1:
                middle = len(crowd) // 2
                await self._look_after(crowd[:middle])
                await self._look_after(crowd[middle:])
            elif not isinstance(error, Unavailable):
                for waiting in crowd:
                    waiting.fail(refusal or error)
        else:
            for waiting, answer in zip(crowd, answers, strict=True):
                if answer is not None:
                    waiting.resolve(answer)


def _refusal(error: Exception) -> TaskFlowError | None:
    """Return what to tell the one request that is at fault, or None when no request is."""
    for each in (error, error.__cause__):
        if each is not None and faults.key_held(each):
            message = "A request with this Idempotency-Key is being answered just now"
            return KeyInProgress(message, fix="wait a moment, then send the same request", field="Idempotency-Key")
        if each is not None and faults.rejected(each):
            message = "PostgreSQL cannot keep this task"
            return Invalid(message, fix="look for unusual characters or very long names in it")
    return None


class Submitter:
    """Submits tasks. One for a process; both kinds of requests flush apart."""

    def __init__(self, plain: Database, keyed: Database, hint: Hint) -> None:
        """Write to `plain`; keyed requests to `keyed`, whose sessions wait at most 200 ms for a lock."""
        self._plain = plain
        self._keyed = keyed
        self._hints = _Hints(hint)
        self._queues: set[str] = set()
        self._loose = _Flow(self._write_loose, self._settle_loose)
        self._under_keys = _Flow(self._write_keyed, self._settle_keyed)

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Submitted]:
        """Write tasks, all or none; return them in order. Raises Invalid, Unavailable, CommitUnknown."""
        return await self._loose.put(submissions, len(submissions), _size(submissions))

    async def submit_keyed(self, request: KeyedRequest) -> KeyedAnswer:
        """Write tasks under an idempotency key. Raises Invalid, KeyInProgress, Unavailable, CommitUnknown."""
        return await self._under_keys.put(request, len(request.submissions), _size(request.submissions))

    async def close(self) -> None:
        """Wait until everything is written, answered and hinted."""
        await self._loose.close()
        await self._under_keys.close()
        await self._hints.close()

    async def _write_loose(self, groups: Sequence[Sequence[Submission]]) -> list[Sequence[Submitted]]:
        tasks = [task for group in groups for task in group]
        async with self._plain.connection() as tx:
            await self._ensure_queues(tx, tasks)
            born: list[Submitted] = await queue.submit(tx, tasks)
        self._hints.add(zip(tasks, born, strict=True))
        found = iter(born)
        return [[next(found) for _ in group] for group in groups]

    async def _write_keyed(self, requests: Sequence[KeyedRequest]) -> list[KeyedAnswer]:
        async with self._keyed.connection() as tx:
            await self._ensure_queues(tx, [task for request in requests for task in request.submissions])
            answers: list[KeyedAnswer] = await queue.submit_keyed(tx, requests)
        for request, answer in zip(requests, answers, strict=True):
            if answer.outcome is KeyedOutcome.CREATED:
                self._hints.add(zip(request.submissions, answer.submitted, strict=True))
        return answers

    async def _ensure_queues(self, tx: object, tasks: Iterable[Submission]) -> None:
        new = {task.queue for task in tasks} - self._queues
        if new:
            await queue.ensure_queues(tx, new)
            if len(self._queues) > _MOST_NAMES:
                self._queues.clear()
            self._queues |= new

    async def _settle_loose(self, groups: Sequence[Sequence[Submission]]) -> list[Sequence[Submitted] | None]:
        """Read back by ids. What is not there may still arrive, so only its presence is an answer."""
        async with self._plain.connection() as tx:
            born = await lookups.born(tx, [task.id for group in groups for task in group])
        self._hints.add((task, born[task.id]) for group in groups for task in group if task.id in born)
        return [
            [born[task.id] for task in group] if all(task.id in born for task in group) else None for group in groups
        ]

    async def _settle_keyed(self, requests: Sequence[KeyedRequest]) -> list[KeyedAnswer | None]:
        """Send them again: where the first COMMIT did happen, its own answer comes back."""
        return [
            KeyedAnswer(outcome=KeyedOutcome.CREATED, submitted=answer.submitted)
            if [born.id for born in answer.submitted] == [task.id for task in request.submissions]
            else answer
            for request, answer in zip(requests, await self._write_keyed(requests), strict=True)
        ]


def unknown() -> CommitUnknown:
    """Return the answer to a request of which nobody can tell whether it was written."""
    message = "The database was lost while it wrote this; it may have been written or not"
    return CommitUnknown(message, fix="send it again; with an Idempotency-Key it is written once however often you do")


def _size(submissions: Sequence[Submission]) -> int:
    return sum(len(task.payload) for task in submissions) + ROW_BYTES * len(submissions)


@dataclass(slots=True)
class _Hints:
    """Tells Redis about new tasks, one call at a time; what comes meanwhile forms the next call."""

    hint: Hint
    _rows: list[tuple[Submission, Submitted]] = field(default_factory=list)
    _runner: asyncio.Task[None] | None = None

    def add(self, rows: Iterable[tuple[Submission, Submitted]]) -> None:
        # Beyond the bound hints are dropped: the leader finds the tasks in PostgreSQL.
        if len(self._rows) < ROOM_ROWS:
            self._rows.extend(rows)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._rows:
                rows, self._rows = self._rows, []
                await self.hint(rows)
        finally:
            self._runner = None

    async def close(self) -> None:
        if self._runner is not None:
            await asyncio.wait([self._runner])
