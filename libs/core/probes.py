"""`/healthz`, `/readyz` and `/metrics`, from a thread of their own: they answer whatever the process is busy with.

Neither probe depends on load or on the stores: a process that is taken out for those helps nobody.
"""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar, Final

from core import clock, telemetry
from core.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

STUCK_SECONDS: Final = 30.0  # an event loop that has not turned for so long will not do so again by itself
_BEAT_SECONDS: Final = 1.0


class Pulse:
    """Whether an event loop still turns: `beat` runs in it, anybody may ask from any thread."""

    def __init__(self, *, most: float = STUCK_SECONDS, monotonic: Callable[[], float] = clock.monotonic) -> None:
        """Count as alive for `most` seconds after each beat, and after now."""
        self._most, self._monotonic = most, monotonic
        self._last = monotonic()

    def alive(self) -> bool:
        """Tell whether the last beat is young enough."""
        return self._monotonic() - self._last <= self._most

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            self._last = self._monotonic()
            await asyncio.sleep(_BEAT_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    ready: ClassVar[list[Callable[[], bool]]] = []
    alive: ClassVar[list[Callable[[], bool]]] = []
    note: ClassVar[list[Callable[[], str]]] = []
    timeout = 10.0  # a connection on which nothing is asked does not keep its thread

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/healthz":
                alive = all(ask() for ask in self.alive)
                self._answer(200 if alive else 503, b"ok\n" if alive else b"its event loop is stuck\n")
            case "/readyz":
                ready = all(ask() for ask in self.ready)
                words = ["ready" if ready else "not ready", *filter(None, (ask() for ask in self.note))]
                self._answer(200 if ready else 503, ("; ".join(words) + "\n").encode())
            case "/metrics":
                text, kind = telemetry.exposed()
                self._answer(200, text, kind)
            case _:
                self._answer(404, b"there are /healthz, /readyz and /metrics\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        """Probes come every few seconds; nobody wants to read of them."""


def serve(
    port: int,
    ready: Callable[[], bool],
    alive: Callable[[], bool] = lambda: True,
    *,
    note: Callable[[], str] = lambda: "",
    host: str = "0.0.0.0",  # noqa: S104 - for the kubelet
) -> Callable[[], None]:
    """Answer probes until the returned function is called; port 0 serves nothing.

    `ready`, `alive` and `note`, which stands beside the answer of `/readyz`, are asked in another thread. Raises
    SettingError when the port is taken.
    """
    if not port:
        return lambda: None
    handler = type("Handler", (_Handler,), {"ready": [ready], "alive": [alive], "note": [note]})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as taken:
        message = f"TASKFLOW_METRICS_PORT is wrong: port {port} cannot be used ({taken.strerror})"
        raise SettingError(message, fix="choose a free one, or 0 for none", field="metrics_port") from taken
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
