"""A task of the queue in memory: the same statuses and the same moves between them as on a server."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from taskflow_queue import calls, models
from taskflow_queue import runner_outcomes as outcomes
from taskflow_queue.context import Context, enter, leave
from taskflow_queue.protocol import Done, Run
from taskflow_queue.retry import Failure, RetryPolicy, decide

if TYPE_CHECKING:
    from datetime import datetime

    from taskflow_queue.task import Task

# The moves of core.domain.lifecycle that a queue without gates and without crashes needs: {cause: {from: to}}.
# tests/contract holds them equal to that table.
MOVES: Final[dict[str, dict[str, str]]] = {
    "claim": {"QUEUED": "IN_PROGRESS"},
    "succeed": {"IN_PROGRESS": "COMPLETED", "CANCELLING": "COMPLETED"},
    "retry": {"IN_PROGRESS": "PENDING", "CANCELLING": "CANCELLED"},
    "give_up": {"IN_PROGRESS": "FAILED", "CANCELLING": "CANCELLED"},
    "cancel": {"PENDING": "CANCELLED", "QUEUED": "CANCELLED", "IN_PROGRESS": "CANCELLING"},
    "stop": {"CANCELLING": "CANCELLED"},
    "expire": {"PENDING": "EXPIRED", "QUEUED": "EXPIRED"},
    "promote": {"PENDING": "QUEUED"},
    "redrive": {"FAILED": "QUEUED", "CANCELLED": "QUEUED", "EXPIRED": "QUEUED"},
}


@dataclass(frozen=True, slots=True)
class EagerAttempt:
    """One start of a task. `kind` is returned, raised, later, rejected or cancelled; times are the virtual clock's."""

    number: int
    started_at: datetime
    ended_at: datetime
    kind: str
    error_type: str = ""
    message: str = ""
    logs: str = ""


@dataclass(slots=True, kw_only=True)
class EagerTask:
    """A task in memory. `due` and `expires` are in virtual time; `payload` and `result` are JSON, as on the wire."""

    id: str
    type: str
    payload: bytes
    created_at: datetime
    seq: int
    due: datetime
    queue: str = "default"
    priority: str = "NORMAL"
    title: str | None = None
    expires: datetime | None = None
    timeout: float | None = None
    most_attempts: int | None = None
    concurrency_key: str | None = None
    status: str = "QUEUED"
    attempt: int = 0
    retry_count: int = 0
    result: bytes | None = None
    error: models.Failure | None = None
    progress: models.Progress | None = None
    attempts: list[EagerAttempt] = field(default_factory=list)
    context: Context | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing moves it any more but a retry by hand."""
        return self.status in models.ENDED

    def move(self, cause: str) -> bool:
        """Move it as the lifecycle says; False when the lifecycle has no such move from here."""
        to = MOVES[cause].get(self.status)
        if to is None:
            return False
        self.status = to
        return True

    def info(self, now: datetime, known: bool) -> models.TaskInfo:  # noqa: FBT001 - a fact, not a switch
        """The task as the API tells it."""
        waiting = None
        if self.status == "QUEUED" and not known:
            waiting = models.Waiting(code="unknown_type", detail=f"no task {self.type!r} is defined in this process")
        elif self.status == "PENDING" and self.due > now:
            waiting = models.Waiting(code="scheduled", detail=f"due at {self.due.isoformat()}")
        return models.TaskInfo(
            id=self.id,
            type=self.type,
            status=self.status,
            queue=self.queue,
            priority=self.priority,
            title=self.title,
            payload=json.loads(self.payload),
            attempt=self.attempt,
            retry_count=self.retry_count,
            max_attempts=self.most_attempts,
            created_at=self.created_at,
            scheduled_at=self.due,
            expires_at=self.expires,
            started_at=self.attempts[-1].started_at if self.attempts else None,
            finished_at=self.attempts[-1].ended_at if self.ended and self.attempts else None,
            timeout_seconds=self.timeout,
            concurrency_key=self.concurrency_key,
            progress=self.progress,
            error=self.error,
            waiting=waiting,
        )

    def settle(self, task: Task[..., Any], done: Done, rand: float) -> float:
        """Do what the retry rules say after an attempt; return the seconds until the next one, if there is one."""
        match done.kind:
            case "returned":
                self.result, self.error = done.result, None
                self.move("succeed")
                return 0.0
            case "cancelled":
                self.move("stop")
                return 0.0
            case "later":
                failure = Failure.LATER
            case _:
                failure = Failure.FATAL if done.fatal else Failure.RETRYABLE
                self.error = models.Failure(type=done.error_type, message=done.message, traceback=done.traceback)
        policy = task.retry
        if self.most_attempts is not None:
            policy = RetryPolicy(
                max_attempts=self.most_attempts, initial=policy.initial, factor=policy.factor, cap=policy.cap
            )
        decision = decide(policy, failure, failures=self.retry_count, rand=rand, later=done.later)
        self.retry_count += decision.charge
        self.move("retry" if decision.again else "give_up")
        return decision.delay


def run(task: Task[..., Any], row: EagerTask) -> Done:
    """Call the function with the arguments as they come off the wire, and translate what it did as a worker does."""
    asked = Run(
        UUID(row.id).bytes,
        row.attempt,
        row.type,
        row.payload,
        timeout=row.timeout,
        queue=row.queue,
        priority=row.priority,
        retry_count=row.retry_count,
        created_at=row.created_at.timestamp(),
    )
    context = row.context = Context(asked)
    token = enter(context)
    try:
        args, kwargs = calls.arguments(calls.decode(row.payload))
        value = task.function(*args, **kwargs)
        if task.is_async:
            value = _await(value)
        done = outcomes.returned(asked, value, context.take_logs())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a task raises is an outcome, as in a worker
        stopped = "cancelled" if context.cancel_wanted else None
        done = outcomes.failed(asked, error, context.take_logs(), stopped=stopped, gives_up=task.gives_up)
    finally:
        leave(token)
        context.end()
    if (news := context.take_progress()) is not None:
        row.progress = models.Progress(fraction=news[0], note=news[1])
    return done


def _await(coroutine: Any) -> Any:
    """Run a coroutine on a loop of its own, in a thread: the test itself may be running on one."""
    answer: list[Any] = []
    raised: list[BaseException] = []
    here = contextvars.copy_context()

    def work() -> None:
        try:
            answer.append(here.run(asyncio.run, coroutine))
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return answer[0]
