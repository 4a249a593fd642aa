"""Errors as `application/problem+json` (RFC 9457): the only place that knows HTTP numbers. No stack ever leaves.

`code` is stable and for programs, `detail` and `fix` are for people, `field` names the part of the request.
"""

import math
from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from core import errors, faults
from core.strict_json import NotJson

MEDIA_TYPE: Final = "application/problem+json"
_encode: Final = msgspec.json.Encoder().encode


class TooLarge(errors.Invalid):
    """The request is larger than it may be; the rest of it is not read."""

    code = "too_large"


class SlowBody(errors.Invalid):
    """The body did not arrive in time."""

    code = "slow_body"


class HeadersTooLarge(errors.Invalid):
    """The request's headers are larger than they may be."""

    code = "headers_too_large"


class UnsupportedMedia(errors.Invalid):
    """The body is of a kind, or packed in a way, that is not read here."""

    code = "unsupported_media_type"


class Refused(errors.Invalid):
    """Several parts of a request are wrong: `errors` has each of them."""

    def __init__(self, message: str, *, field: str | None, found: list[dict[str, Any]]) -> None:
        super().__init__(message, fix="mend what `errors` lists; nothing of this request was done", field=field)
        self.found = found


class NoRoute(errors.NotFound):
    """There is nothing under this path."""

    code = "no_such_path"


class WrongMethod(errors.Invalid):
    """The path is right, the method is not."""

    code = "method_not_allowed"


# From the special to the general: the first class that fits decides.
STATUS: Final[tuple[tuple[type[errors.TaskFlowError], int], ...]] = (
    (NotJson, 400),
    (TooLarge, 413),
    (SlowBody, 408),
    (HeadersTooLarge, 431),
    (UnsupportedMedia, 415),
    (WrongMethod, 405),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Invalid, 422),
    (errors.Throttled, 429),
    (errors.Unavailable, 503),
)


class _Codes:
    """How an HTTP error of the framework is told in our words."""

    by_status: ClassVar[dict[int, errors.TaskFlowError]] = {
        404: NoRoute("There is nothing under this path", fix="GET /openapi.json lists all paths"),
        405: WrongMethod("This path does not know the method", fix="GET /openapi.json lists the methods of each path"),
    }


def status_of(error: errors.TaskFlowError) -> int:
    """Return the HTTP status of an error of ours."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def describe(error: errors.TaskFlowError, request_id: str) -> dict[str, Any]:
    """Return the body of the answer to an error."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        error = errors.TaskFlowError("Something went wrong here", fix="tell the operator the request_id")
    elif isinstance(error, errors.Unavailable) and error.__cause__ is not None:
        error = _outward(error)
    problem: dict[str, Any] = {
        "type": f"urn:taskflow:problem:{error.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": error.message,
        "fix": error.fix,
        "field": error.field,
        "request_id": request_id,
    }
    if isinstance(error, Refused):
        problem["errors"] = error.found
    return problem


def _outward(error: errors.Unavailable) -> errors.TaskFlowError:
    """Return a store's failure without the driver's words: they name addresses and files of ours."""
    if isinstance(error, errors.CommitUnknown):
        return errors.CommitUnknown(
            "The database was lost while it wrote this; it may have been written or not",
            fix="look what became of it, or ask again when Retry-After has passed",
        )
    return faults.translate(error.__cause__ or error) or error


def headers_of(error: errors.TaskFlowError) -> dict[str, str]:
    """Return the headers that belong to an error."""
    if isinstance(error, (errors.Throttled, errors.Unavailable)):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="taskflow"'}
    # The rest of the request is not read, so the connection cannot be used again.
    return {"Connection": "close"} if isinstance(error, (TooLarge, SlowBody, HeadersTooLarge)) else {}


def answer(error: errors.TaskFlowError, request_id: str) -> Response:
    """Return the whole answer to an error."""
    return Response(
        _encode(describe(error, request_id)),
        status_code=status_of(error),
        media_type=MEDIA_TYPE,
        headers=headers_of(error),
    )


def request_id_of(request: Request) -> str:
    """Return the id that the edge gave the request."""
    return str(request.scope["state"].get("request_id", ""))


def invalid(found: list[Any], *, at: str = "") -> errors.Invalid:
    """Return pydantic's findings as one error that names the first of the fields."""
    first = found[0]
    field = path_of(first["loc"], at=at)
    says = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        says = "there is no such field"
    elif first["type"] == "missing":
        says = "it is required"
    elif first["type"] == "string_pattern_mismatch":
        says = "it is empty, or has characters that cannot stand there"
    where = f"{field}: " if field else ""
    return errors.Invalid(f"{where}{says[:1].lower()}{says[1:]}", fix="see /openapi.json", field=field or None)


def path_of(location: tuple[str | int, ...], *, at: str = "") -> str:
    """Return `("a", 0, "b")` as `a[0].b`, below `at`."""
    path = at
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def install(app: FastAPI) -> None:
    """Let `app` answer every error this way; the edge logs those that nobody expected."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.TaskFlowError)  # noqa: S101 - what it is registered for
        return answer(error, request_id_of(request))

    async def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
        found = [{**each, "loc": each["loc"][1:]} for each in error.errors()]  # without "query" or "path"
        return answer(invalid(found), request_id_of(request))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        known = _Codes.by_status.get(error.status_code) or errors.Invalid(str(error.detail))
        told = answer(known, request_id_of(request))
        for name, value in (error.headers or {}).items():
            told.headers[name] = value
        return told

    async def unexpected(request: Request, error: Exception) -> Response:
        return answer(faults.translate(error) or errors.TaskFlowError("internal"), request_id_of(request))

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(errors.TaskFlowError, ours)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, http)
