"""uvicorn, with what it leaves open: bounded request heads, and an end in the right order."""

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core import telemetry
from core.errors import SettingError

MOST_HEAD: Final = 64 * 1024  # request line and headers; the edge refuses sooner, and in better words
HEAD_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 25
NOTICE_SECONDS: Final = 0.5  # from "not ready" to "no new connections", so that who watches /readyz sees it
BACKLOG: Final = 2048
log = telemetry.get_logger("api")


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request head is endless, or takes longer than 10 s to arrive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if self._head > MOST_HEAD:
                self.transport.close()
                return
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head and self._deadline is None:
            self._watch()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head = 0
        self._unwatch()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def _watch(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Ends in order: not ready, then no new connections, then the requests under way, at most 25 s."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            log.info("ready", host=host, port=port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        """Go down in order; the second signal cuts what is under way."""
        # Not uvicorn's own way: it would raise the signal again at the end, and exit 143 after a clean stop.
        if self.should_exit or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        log.info("stopping", signal=signal.Signals(sig).name)
        self._drain()
        self._loop.call_later(NOTICE_SECONDS, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises SettingError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as taken:
        message = f"TASKFLOW_API_HOST or TASKFLOW_API_PORT is wrong: {host}:{port} cannot be used ({taken})"
        raise SettingError(message, fix="choose a free port of this machine", field="api_port") from taken
