"""Calls over the network: one pool of connections for threads, one for each event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx2

from taskflow_queue import clock
from taskflow_queue.wire import Answer, Call, Lost

if TYPE_CHECKING:
    from taskflow_queue.settings import Settings

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 15.0
_CONNECTIONS: Final = 100
_POLLS: Final = 64  # calls that wait on purpose, at once: a thousand awaited results must not keep a submission out
_CROWDED_SECONDS: Final = 2.0  # how long such a call may take while others wait for their turn
_LOCAL: Final = {"localhost", "127.0.0.1", "::1"}
_NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout)


# It tells each request at INFO, and a task that submits tasks would have a log of nothing else. Who wants it sets it.
if (_logger := logging.getLogger("httpx2")).level == logging.NOTSET:
    _logger.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class _OfLoop:
    """What belongs to one event loop."""

    client: httpx2.AsyncClient
    polls: asyncio.Semaphore


class Http:
    """Sends calls to one server with one key."""

    at_once = 2  # the server reads a batch while it writes the one before; a third would only wait there

    def __init__(self, settings: Settings, *, options: dict[str, Any] | None = None) -> None:
        """`options` go to httpx2's clients as they are: a `transport`, for tests."""
        self.settings = settings
        self._options = _options(settings) | (options or {})
        self._sync: httpx2.Client | None = None
        self._polls = threading.Semaphore(_POLLS)
        self._async: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = weakref.WeakKeyDictionary()
        self._process = os.getpid()

    def send(self, call: Call) -> Answer | Lost:
        """Wait `call.after` seconds, then send."""
        if call.after:
            clock.pause(call.after)
        self._after_fork()
        if not call.slow:
            return self._send(call)
        crowded = not self._polls.acquire(blocking=False)
        if crowded:
            self._polls.acquire()
        try:
            return self._send(_shorter(call) if crowded else call)
        finally:
            self._polls.release()

    async def send_async(self, call: Call) -> Answer | Lost:
        """Wait `call.after` seconds, then send."""
        if call.after:
            await clock.sleep(call.after)
        self._after_fork()
        loop = asyncio.get_running_loop()
        here = self._async.get(loop)
        if here is None:
            here = self._async[loop] = _OfLoop(httpx2.AsyncClient(**self._options), asyncio.Semaphore(_POLLS))
        if not call.slow:
            return await self._send_async(here.client, call)
        crowded = here.polls.locked()
        async with here.polls:
            return await self._send_async(here.client, _shorter(call) if crowded else call)

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
        here = self._async.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.client.aclose()

    def _send(self, call: Call) -> Answer | Lost:
        if self._sync is None:
            self._sync = httpx2.Client(**self._options)
        try:
            return _answer(self._sync.request(**_request(call)))
        except httpx2.TransportError as lost:
            return self._lost(lost)

    async def _send_async(self, client: httpx2.AsyncClient, call: Call) -> Answer | Lost:
        try:
            return _answer(await client.request(**_request(call)))
        except httpx2.TransportError as lost:
            return self._lost(lost)

    def _after_fork(self) -> None:
        """Leave the parent's connections to the parent: two writers on one socket mix their requests."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._sync = None
            self._polls = threading.Semaphore(_POLLS)
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
        "limits": httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=20, keepalive_expiry=30),
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
        # None for the pool: to wait for a turn says nothing about the server.
        "timeout": httpx2.Timeout(_ANSWER_SECONDS + call.slow, connect=_CONNECT_SECONDS, pool=None),
    }


def _shorter(call: Call) -> Call:
    """Let others have their turn: the caller asks again."""
    slow = min(call.slow, _CROWDED_SECONDS)
    return replace(call, slow=slow, params=call.params | {"wait": f"{slow:.3f}"})


def _answer(response: httpx2.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, response.content, headers)
