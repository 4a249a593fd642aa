"""The one tree of errors. Each knows its code, which is API and never changes; the edge alone knows HTTP.

`message` says what is wrong, `fix` what to do about it, `field` which part of a request it is about.
"""

from __future__ import annotations

from typing import ClassVar


class TaskFlowError(Exception):
    """Anything that TaskFlow refuses or fails to do."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, fix: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.field = field

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message


class SettingError(TaskFlowError):
    """A setting is missing or wrong. One line names it; a process prints that line and exits 2."""

    code = "setting"


class SettingMissing(SettingError):
    """A setting that has no default is not there."""

    code = "setting_missing"


class Invalid(TaskFlowError):
    """What was asked makes no sense, whoever asks and whenever."""

    code = "invalid"


class NotFound(TaskFlowError):
    """There is no such thing, or it is not the caller's to see."""

    code = "not_found"


class Conflict(TaskFlowError):
    """It makes sense, but not in the state that things are in."""

    code = "conflict"


class AttemptFenced(Conflict):
    """The attempt is no longer the caller's; the task has moved on without it."""

    code = "attempt_fenced"


class IllegalMove(Conflict):
    """The lifecycle has no such move from the task's present status."""

    code = "illegal_move"


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, with another body."""

    code = "idempotency_conflict"


class KeyInProgress(Conflict):
    """A request with the same idempotency key is being answered right now."""

    code = "in_progress"


class Unauthenticated(TaskFlowError):
    """Who is asking could not be established."""

    code = "unauthenticated"


class Forbidden(TaskFlowError):
    """Who is asking may not do this."""

    code = "forbidden"


class Throttled(TaskFlowError):
    """Too much of it just now; `retry_after` is in seconds."""

    code = "throttled"

    def __init__(
        self, message: str, *, retry_after: float = 1.0, fix: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, fix=fix, field=field)
        self.retry_after = retry_after


class Unavailable(TaskFlowError):
    """A store cannot be reached. Nothing was written; asking again after `retry_after` seconds is safe."""

    code = "unavailable"

    def __init__(
        self, message: str, *, retry_after: float = 1.0, fix: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, fix=fix, field=field)
        self.retry_after = retry_after


class CommitUnknown(Unavailable):
    """The answer to a COMMIT was lost: it may have happened. Read back before trying again."""

    code = "commit_unknown"


class Deposed(Unavailable):
    """Another process leads by now; this one must write nothing more as leader."""

    code = "deposed"
