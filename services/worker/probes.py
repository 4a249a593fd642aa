"""`/healthz`, `/readyz` and `/metrics`, from a thread of their own: they answer whatever the worker is busy with.

Ready is: registered and not cordoned. It never depends on load or on the stores, because a worker that is taken out
for those helps nobody.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

from core import telemetry
from core.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable


class _Handler(BaseHTTPRequestHandler):
    ready: ClassVar[list[Callable[[], bool]]] = []

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/healthz":
                self._answer(200, b"ok\n")
            case "/readyz":
                ready = all(ask() for ask in self.ready)
                self._answer(200 if ready else 503, b"ready\n" if ready else b"not registered, or draining\n")
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


def serve(port: int, ready: Callable[[], bool], *, host: str = "0.0.0.0") -> Callable[[], None]:  # noqa: S104 - for the kubelet
    """Answer probes until the returned function is called; 0 serves nothing."""
    if not port:
        return lambda: None
    handler = type("Handler", (_Handler,), {"ready": [ready]})
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
