"""How one submission differs from what its task says: priority, time, keys."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, get_args

from taskflow_queue import clock
from taskflow_queue.errors import SettingError

Priority = Literal["LOW", "NORMAL", "HIGH"]
Moment = datetime | timedelta | float
"""A time: a datetime with a zone, or how long from now as a timedelta or in seconds."""


class Said(TypedDict, total=False):
    """The keywords of `options` and of `Client.submit`: see Options."""

    queue: str | None
    priority: Priority | None
    title: str | None
    scheduled_at: datetime | None
    delay: float | timedelta | None
    expires_at: Moment | None
    timeout: float | None
    max_attempts: int | None
    concurrency_key: str | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said at a submission. None leaves it to the task, the queue and the server, in that order.

    `delay` is seconds (or a timedelta) from now, instead of `scheduled_at`; `timeout` is seconds.
    """

    queue: str | None = None
    priority: Priority | None = None
    title: str | None = None
    scheduled_at: datetime | None = None
    delay: float | timedelta | None = None
    expires_at: Moment | None = None
    timeout: float | None = None
    max_attempts: int | None = None
    concurrency_key: str | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        if self.priority is not None and self.priority not in get_args(Priority):
            raise SettingError(f"there is no priority {self.priority!r}", fix="use LOW, NORMAL or HIGH")
        if self.delay is not None and self.scheduled_at is not None:
            raise SettingError("a task has a delay or a scheduled_at, not both", fix="give one of them")

    def over(self, other: Options) -> Options:
        """Return these options, and those of `other` where these say nothing."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        if said["delay"] is None and said["scheduled_at"] is None:
            said |= {"delay": other.delay, "scheduled_at": other.scheduled_at}
        rest = ((name, getattr(other, name)) for name, value in said.items() if value is None)
        return Options(**said | {name: value for name, value in rest if name not in {"delay", "scheduled_at"}})

    def body(self) -> dict[str, Any]:
        """Return the members of a task's JSON that were said; the idempotency key is a header, not one of them."""
        at = self.delay if self.delay is not None else self.scheduled_at
        said = {
            "queue": self.queue,
            "priority": self.priority,
            "title": self.title,
            "scheduled_at": None if at is None else instant(at, "scheduled_at"),
            "expires_at": None if self.expires_at is None else instant(self.expires_at, "expires_at"),
            "timeout_seconds": self.timeout,
            "max_attempts": self.max_attempts,
            "concurrency_key": self.concurrency_key,
        }
        return {name: value for name, value in said.items() if value is not None}


def instant(moment: Moment, field: str) -> str:
    """Return a time as RFC 3339. Raises SettingError for a datetime without a zone: it names no instant."""
    if isinstance(moment, timedelta):
        moment = clock.now() + moment
    elif not isinstance(moment, datetime):
        moment = clock.now() + timedelta(seconds=moment)
    if moment.tzinfo is None:
        raise SettingError(f"{field} has no time zone", fix="use datetime.now(UTC) + timedelta(...), or a delay")
    return moment.isoformat()
