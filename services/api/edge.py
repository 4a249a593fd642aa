"""The outermost layer of every request: its id, its bounds, its metrics, and the last net for errors.

Plain ASGI, because every request pays for it.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from core import faults, telemetry
from core.errors import TaskFlowError
from services.api import problems

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

MOST_BODY: Final = 1024 * 1024
MOST_HEADERS: Final = 16 * 1024
_LONG: Final = 18  # digits; Python refuses to read a number of some thousand
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ALWAYS: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[Request], Awaitable[Response]]

log = telemetry.get_logger("api")


class Edge:
    """Wraps the application: see the module.

    `hot` are routes of fixed path that read and answer by themselves. They are called from here, past the framework's
    routing, which costs more than a submit does; the framework knows them too, for the documentation.
    """

    def __init__(self, app: App, hot: Mapping[tuple[str, str], Handler] | None = None) -> None:
        self._app = app
        self._hot = {name: _straight(handler, name[1]) for name, handler in (hot or {}).items()}
        self._seen = _Seen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app = self._hot.get((scope["method"], scope["path"]), self._app)
        await _Exchange(scope, receive, send).run(app, self._seen)


def _straight(handler: Handler, path: str) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["route"] = path
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_length", "_receive", "_request_id", "_scope", "_send", "_started", "_status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._status = 0
        self._length = 0
        self._started = perf_counter()
        self._request_id = b""

    async def run(self, app: App, seen: "_Seen") -> None:
        head = dict(self._scope["headers"])
        asked = head.get(b"x-request-id", b"")
        self._request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8).encode()
        state = self._scope.setdefault("state", {})
        state["request_id"] = self._request_id.decode()
        state["head"] = head
        try:
            refuse(self._scope["headers"], head)
            await app(self._scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - the last net: whatever it is, the client gets a problem
            await self._tell(error)
        seen.note(self._scope, self._status, perf_counter() - self._started)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            # Counted as it comes, because a chunked body announces no length.
            self._length += len(message.get("body", b""))
            if self._length > MOST_BODY:
                raise too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = message["headers"]
            headers += _ALWAYS
            headers.append((b"x-request-id", self._request_id))
            limits = self._scope["state"].get("limits")
            if limits:
                headers += limits
        await self._send(message)

    async def _tell(self, error: Exception) -> None:
        known = faults.translate(error)
        if known is None:
            log.error("request failed", request_id=self._request_id.decode(), path=self._scope["path"], exc_info=error)
            known = TaskFlowError("internal")
        if self._status:
            return  # too late: the answer had begun, and the connection ends with it
        response = problems.answer(known, self._request_id.decode())
        await response(self._scope, self.receive, self.send)


class _Seen:
    """The request metrics, with their label sets kept: looking them up costs more than counting."""

    def __init__(self) -> None:
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        # Never the raw path: clients invent those.
        route = scope["state"].get("route") or getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        labels = (method, route, status)
        if labels not in self._children:
            metrics = telemetry.metrics()
            self._children[labels] = (
                metrics.http_requests_total.labels(method, route, status),
                metrics.http_request_seconds.labels(method, route),
            )
        counter, histogram = self._children[labels]
        counter.inc()
        histogram.observe(seconds)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def refuse(headers: list[tuple[bytes, bytes]], head: Mapping[bytes, bytes]) -> None:
    """Raise what the headers alone are reason for."""
    size = sum(len(name) + len(value) for name, value in headers)
    if size > MOST_HEADERS:
        message = f"The headers have {size} bytes, and {MOST_HEADERS} are allowed"
        raise problems.HeadersTooLarge(message, fix="send fewer or shorter headers")
    length = head.get(b"content-length", b"0")
    if length.isdigit() and (len(length) > _LONG or int(length) > MOST_BODY):
        raise too_large()
    if head.get(b"content-encoding", b"").strip().lower() not in {b"", b"identity"}:
        message = "A packed body is not read"
        fix = "send it without Content-Encoding"
        raise problems.UnsupportedMedia(message, fix=fix, field="Content-Encoding")


def too_large() -> problems.TooLarge:
    """Return the refusal of a body beyond the limit."""
    message = f"A body may have at most {MOST_BODY} bytes"
    return problems.TooLarge(message, fix="split it: POST /v1/tasks:batch several times")
