from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from core import probes
from core.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def served(ready: Callable[[], bool], alive: Callable[[], bool]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = probes.serve(port, ready, alive, host="127.0.0.1")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()


def code(url: str) -> int:
    return httpx2.get(url).status_code


def test_each_probe_tells_what_it_is_asked() -> None:
    states = {"ready": False, "alive": True}
    with served(lambda: states["ready"], lambda: states["alive"]) as base:
        assert (code(f"{base}/healthz"), code(f"{base}/readyz")) == (200, 503)
        states.update(ready=True, alive=False)
        assert (code(f"{base}/healthz"), code(f"{base}/readyz?verbose")) == (503, 200)
        assert code(f"{base}/nothing") == 404
        metrics = httpx2.get(f"{base}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=")
        assert "process_cpu_seconds_total" in metrics.text


def test_an_event_loop_that_does_not_turn_is_not_alive() -> None:
    now = [100.0]
    pulse = probes.Pulse(most=30.0, monotonic=lambda: now[0])
    now[0] += 30
    assert pulse.alive()
    now[0] += 1
    assert not pulse.alive()

    async def turn() -> None:
        beating = asyncio.create_task(pulse.beat())
        await asyncio.sleep(0)
        beating.cancel()

    asyncio.run(turn())
    assert pulse.alive()


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingError, match="TASKFLOW_METRICS_PORT"):
        probes.serve(taken.getsockname()[1], lambda: True, host="127.0.0.1")
    probes.serve(0, lambda: True)()
