"""Calls over the network: one pool of connections for threads, one for each event loop."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2

from taskflow_queue import clock
from taskflow_queue.wire import Answer, Call, Lost

if TYPE_CHECKING:
    from taskflow_queue.settings import Settings

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 15.0
_LOCAL: Final = {"localhost", "127.0.0.1", "::1"}
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Http:
    """Sends calls to one server with one key."""

    def __init__(self, settings: Settings, *, options: dict[str, Any] | None = None) -> None:
        """`options` go to httpx2's clients as they are: a `transport`, for tests."""
        self.settings = settings
        self._options = _options(settings) | (options or {})
        self._sync: httpx2.Client | None = None
        self._async: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        self._process = os.getpid()

    def send(self, call: Call) -> Answer | Lost:
        """Wait `call.after` seconds, then send."""
        if call.after:
            clock.pause(call.after)
        self._after_fork()
        if self._sync is None:
            self._sync = httpx2.Client(**self._options)
        try:
            return _answer(self._sync.request(**_request(call)))
        except httpx2.TransportError as lost:
            return self._lost(lost)

    async def send_async(self, call: Call) -> Answer | Lost:
        """Wait `call.after` seconds, then send."""
        if call.after:
            await clock.sleep(call.after)
        self._after_fork()
        loop = asyncio.get_running_loop()
        client = self._async.get(loop)
        if client is None:
            client = self._async[loop] = httpx2.AsyncClient(**self._options)
        try:
            return _answer(await client.request(**_request(call)))
        except httpx2.TransportError as lost:
            return self._lost(lost)

    def monotonic(self) -> float:
        """The machine's monotonic clock."""
        return clock.monotonic()

    def close(self) -> None:
        """Close the connections of the sync face."""
        client, self._sync = self._sync, None
        if client is not None and self._process == os.getpid():
            client.close()

    async def close_async(self) -> None:
        """Close the connections of this event loop."""
        client = self._async.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _after_fork(self) -> None:
        """Leave the parent's connections to the parent: two writers on one socket mix their requests."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._sync = None
            self._async = weakref.WeakKeyDictionary()

    def _lost(self, error: httpx2.TransportError) -> Lost:
        why = str(error) or type(error).__name__
        return Lost(f"no answer from {self.settings.url} ({why})", sent=not isinstance(error, _NEVER_SENT))

    def __repr__(self) -> str:
        return self.settings.url


def _options(settings: Settings) -> dict[str, Any]:
    key = {"x-api-key": settings.api_key} if settings.api_key else {}
    local = urlsplit(settings.url).hostname in _LOCAL
    return {
        "base_url": settings.url,
        "headers": {"user-agent": "taskflow-queue", **key},
        "limits": httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30),
        # Certificates take tens of milliseconds to load, and a proxy of the environment is not for this machine.
        "verify": settings.url.startswith("https:"),
        "trust_env": not local,
    }


def _request(call: Call) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params or None,
        "headers": call.headers,
        "content": call.body,
        "timeout": httpx2.Timeout(_ANSWER_SECONDS + call.slow, connect=_CONNECT_SECONDS),
    }


def _answer(response: httpx2.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, response.content, headers)
