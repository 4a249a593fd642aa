"""What can go wrong, as one tree. `code` is API and never changes; `fix` says what to do about it."""

from __future__ import annotations

from typing import Any


class TaskFlowError(Exception):
    """Anything that TaskFlow refuses or fails to do."""

    code = "error"

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message


class RetryLater(Exception):
    """Raise it in a task to be run again in `seconds`; such an attempt is not charged."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"again in {seconds:g} s")
        self.seconds = seconds
        self.reason = reason


class SoftTimeout(TimeoutError):
    """Raised in a task when its `soft_timeout` has passed: what is left until `timeout` is for tidying up."""


class Cancelled(BaseException):
    """Raised in a sync task that was asked to stop; an async one gets asyncio.CancelledError."""


class TimedOut(BaseException):
    """Raised in a sync task whose `timeout` has passed; an async one gets asyncio.CancelledError."""


class SettingError(TaskFlowError):
    """A setting, or the definition of a task, is missing or wrong."""

    code = "setting"


class NotJson(TaskFlowError, TypeError):
    """An argument or a result cannot be written as JSON; tasks travel as JSON."""

    code = "not_json"


class TooLarge(TaskFlowError, ValueError):
    """An argument or a result is larger than a task may carry."""

    code = "too_large"


class Unreachable(TaskFlowError, ConnectionError):
    """No answer came from the server for as long as the client was told to be patient."""

    code = "unreachable"


class ApiError(TaskFlowError):
    """The server answered, and refused. `status` is HTTP's; `field` names the part of the request it is about."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "error",
        fix: str | None = None,
        field: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.status = status
        self.code = code
        self.field = field
        self.request_id = request_id


class Invalid(ApiError):
    """What was asked makes no sense, whoever asks and whenever."""


class Unauthenticated(ApiError):
    """The server does not know who is asking: the key is missing, wrong, expired or revoked."""


class Forbidden(ApiError):
    """Who is asking may not do this."""


class NotFound(ApiError):
    """There is no such thing, or it is not the caller's to see."""


class Conflict(ApiError):
    """It makes sense, but not in the state that things are in."""


class Throttled(ApiError):
    """Too much of it just now, for longer than the client was told to be patient."""


class ServerError(ApiError):
    """The server could not do it, for longer than the client was told to be patient."""


class PartlySubmitted(TaskFlowError):
    """A `map` of several batches was stopped by one of them.

    `handles` are the tasks that were submitted, in order; `missing` are the places, from 0, of the items that were not.
    """

    code = "partly_submitted"

    def __init__(self, message: str, *, handles: list[Any], missing: list[int], fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.handles = handles
        self.missing = missing


class TaskError(TaskFlowError):
    """A task ended without a result. `task_id` names it."""

    def __init__(self, message: str, *, task_id: str, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.task_id = task_id


class TaskFailed(TaskError):
    """Its last attempt failed. `error_type`, `error_message` and `traceback` are the task's own."""

    code = "task_failed"

    def __init__(
        self, message: str, *, task_id: str, error_type: str = "", error_message: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback


class TaskQuarantined(TaskFailed):
    """It took its process down too often, and is kept from doing so again."""

    code = "task_quarantined"


class TaskCancelled(TaskError):
    """Somebody cancelled it."""

    code = "task_cancelled"


class TaskExpired(TaskError):
    """Its `expires_at` passed before it was started."""

    code = "task_expired"


class ResultTimeout(TaskFlowError, TimeoutError):
    """The task has not ended in the time that the caller gave; it goes on."""

    code = "timeout"
