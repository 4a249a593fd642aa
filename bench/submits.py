"""Submitting over REST: one task a request on 16 connections, beside an address that only checks the same body; and
`tasks:batch` of 500. The requests are made beforehand and sent by sockets, so that hardly anything but the server is
measured, as far as two cores allow.
"""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from statistics import median

import msgspec

from bench.bare import PATH
from services.dev.fleet import free_port
from services.dev.stage import Stage
from taskflow_queue import Client, task

CONNECTIONS, SECONDS = 16, 4.0
BATCH, BATCHES = 500, 100
PATIENCE_SECONDS = 30.0
BODY = msgspec.json.encode({"type": "bench:taken", "queue": "bench", "payload": {"args": [1], "kwargs": {}}})


@task(queue="bench", name="bench:taken")
async def taken(number: int) -> None:
    """Nobody runs it."""


class Connection:
    """A socket that speaks as much HTTP as is needed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        """Send a request; the status line of its answer."""
        return (await self._answer(request))[0]

    async def body(self, request: bytes) -> bytes:
        """Send a request; the body of its answer."""
        return (await self._answer(request))[1]

    async def _answer(self, request: bytes) -> tuple[bytes, bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return head.partition(b"\r")[0], await self._reader.readexactly(length)


def request(path: str, key: str, body: bytes) -> bytes:
    """A request with a key of idempotency of its own, as the SDK sends it."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {secrets.token_hex(16)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def rate(port: int, connections: int, make: Callable[[], bytes], number: int = 0) -> float:
    """Answered requests a second; `number` of them, or as many as go into SECONDS."""
    left = [number or 10**9]
    answered = [0]
    end = time.monotonic() + (PATIENCE_SECONDS if number else SECONDS)

    async def go_on() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connection = Connection(reader, writer)
        while left[0] > 0 and time.monotonic() < end:
            left[0] -= 1
            status = await connection.ask(make())
            if b" 201 " not in status:
                raise RuntimeError(f"the server answered {status.decode()}")
            answered[0] += 1
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(go_on() for _ in range(connections)))
    return answered[0] / (time.monotonic() - began)


@asynccontextmanager
async def server(stage: Stage) -> AsyncIterator[int]:
    """An API with the bare address beside what it has; its port."""
    port = free_port()
    env = os.environ | stage.fleet.env | {"TASKFLOW_API_PORT": str(port), "RATE_LIMIT_SUBMIT_PER_MINUTE": "100000000"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.bare", env=env)
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def figures(stage: Stage) -> list[str]:
    """The page's table."""
    async with server(stage) as port:
        ratios, ones, bares = [], [], []
        for turn in range(3):
            paths = ["/v1/tasks", PATH]
            found = {}
            for path in paths if turn % 2 else reversed(paths):
                found[path] = await rate(port, CONNECTIONS, lambda path=path: request(path, stage.key, BODY))
            ones.append(found["/v1/tasks"])
            bares.append(found[PATH])
            ratios.append(found["/v1/tasks"] / found[PATH])
        batch = b'{"tasks":[' + b",".join([BODY] * BATCH) + b"]}"
        many = [
            BATCH * await rate(port, 2, lambda: request("/v1/tasks:batch", stage.key, batch), BATCHES) for _ in range(3)
        ]
        async with Client(url=f"http://127.0.0.1:{port}", api_key=stage.key) as client:
            mapped = []
            for _ in range(3):
                began = time.monotonic()
                await taken.options(client=client).map_async(range(BATCH * BATCHES))
                mapped.append(BATCH * BATCHES / (time.monotonic() - began))
    return [
        "| submit over REST | tasks/s (median of three) | lowest | target |",
        "|---|---|---|---|",
        f"| one a request, {CONNECTIONS} connections | {median(ones):,.0f} | {min(ones):,.0f} | |",
        f"| the same body, only checked | {median(bares):,.0f} | {min(bares):,.0f} | |",
        f"| ratio of these two | {median(ratios):.2f} | {min(ratios):.2f} | 0.6 |",
        f"| `tasks:batch` of {BATCH}, 2 connections | {median(many):,.0f} | {min(many):,.0f} | |",
        f"| `map` of the SDK, {BATCH * BATCHES:,} | {median(mapped):,.0f} | {min(mapped):,.0f} | 0.7 of pgqueuer |",
    ]
