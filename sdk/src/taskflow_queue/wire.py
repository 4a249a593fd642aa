"""One request and its answer, apart from who sends it: the rules of trying again.

A *flow* is a generator that yields calls and is sent their answers, so that the sync and the async face, and the
in-memory queue of `testing`, share everything but the sending. A repeat is safe because every submission carries an
idempotency key that its client made, and every other repeated verb is idempotent by nature.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, TypeVar

from taskflow_queue import clock
from taskflow_queue.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    Unauthenticated,
    Unreachable,
)

R = TypeVar("R")

PATIENCE: Final = 30.0  # seconds for which a call is tried again, when nobody says otherwise
_FIRST_WAIT: Final = 0.1
_MOST_WAIT: Final = 5.0
_THROTTLED: Final = 429
_CONFLICT: Final = 409
_UNAVAILABLE: Final = frozenset({502, 503, 504})
_ERRORS: Final[dict[int, type[ApiError]]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Throttled,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `slow` is how many seconds the server may take on purpose; `after` a pause before it, in seconds.

    A call that is not `repeatable` is tried again only when it surely had no effect.
    """

    method: str
    path: str
    params: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    repeatable: bool = True
    slow: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said. Header names are in lower case."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body's value; None when it is no JSON, as behind a proxy that speaks for itself."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer. `sent` is False when the request surely never reached the server."""

    reason: str
    sent: bool


Flow = Generator[Call, Answer | Lost, R]


def exchange(call: Call, patience: float) -> Flow[Answer]:
    """Send a call until it is answered for good, for at most `patience` seconds from now.

    Returns an answer below 400. Raises ApiError, or Unreachable when no answer came at all.
    """
    start = clock.monotonic()
    tries = 0
    while True:
        outcome = yield call
        tries += 1
        if isinstance(outcome, Answer) and outcome.status < HTTPStatus.BAD_REQUEST:
            return outcome
        pause = wait_before_retry(call, outcome, tries, clock.rand())
        if pause is None or clock.monotonic() - start + pause > patience:
            raise error_of(outcome)
        call = replace(call, after=pause)


def wait_before_retry(call: Call, outcome: Answer | Lost, tries: int, rand: float) -> float | None:
    """Return the seconds to wait before another try, or None when there must be none; `rand` is in [0, 1)."""
    wait = min(_MOST_WAIT, _FIRST_WAIT * 2.0 ** min(tries - 1, 10)) * (0.5 + rand / 2)
    if isinstance(outcome, Lost):
        return wait if call.repeatable or not outcome.sent else None
    if outcome.status == _THROTTLED or (outcome.status in _UNAVAILABLE and call.repeatable):
        return max(wait, _retry_after(outcome))
    if outcome.status == _CONFLICT and _code(outcome) == "in_progress":
        return wait  # our own first try, whose answer was lost, is still being written
    return None


def error_of(outcome: Answer | Lost) -> ApiError | Unreachable:
    """Return the error that an unwanted outcome stands for."""
    if isinstance(outcome, Lost):
        fix = "is it running? `taskflow dev` starts one here; TASKFLOW_URL says where it is"
        return Unreachable(outcome.reason, fix=fix)
    problem = outcome.json()
    problem = problem if isinstance(problem, dict) else {}
    kind = _ERRORS.get(outcome.status, ServerError if outcome.status >= HTTPStatus.INTERNAL_SERVER_ERROR else Invalid)
    message = problem.get("detail") or problem.get("title") or f"the server answered {outcome.status}"
    return kind(
        str(message),
        status=outcome.status,
        code=str(problem.get("code") or "error"),
        fix=problem.get("fix"),
        field=problem.get("field"),
        request_id=problem.get("request_id") or outcome.headers.get("x-request-id"),
    )


def _code(answer: Answer) -> str | None:
    problem = answer.json()
    return problem.get("code") if isinstance(problem, dict) else None


def _retry_after(answer: Answer) -> float:
    """Retry-After in seconds. Its other form, a date, is not what this server sends: it counts as absent."""
    try:
        return max(float(answer.headers.get("retry-after", 0)), 0.0)
    except ValueError:
        return 0.0
