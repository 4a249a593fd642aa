"""Latency over REST by the SDK, from before the submit call to the handler's first line: idle, and at half of what the
queue drains; and what it is compared with, a POST that writes nothing and a commit of one row.
"""

import asyncio
import time
from dataclasses import dataclass
from uuid import uuid4

from bench.bare import PATH
from bench.submits import BODY, Connection, request, server
from bench.tasks import stamp
from core.database import Database
from services.dev.stage import Stage
from taskflow_queue import Client

WARM_UP, COUNT, PACE_SECONDS = 100, 500, 0.02
LOAD_SECONDS = 10.0
GROUP_SECONDS = (0.01, 0.0025)  # how often a group arrives: who submits by `map` and who runs want the same two cores
BUCKETS_MS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 1000)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def spread(values: list[float]) -> str:
    """p50 and p99, for a cell each."""
    return f"{percentile(values, 0.5):.2f} | {percentile(values, 0.99):.2f}"


async def latencies(client: Client) -> list[float]:
    """Submit to handler start, milliseconds each, one task every 20 ms."""
    submit = stamp.options(client=client)
    sent = []
    for _ in range(WARM_UP + COUNT):
        began = time.time_ns()
        handle = await submit.submit_async()
        sent.append((began, handle))
        await asyncio.sleep(max(PACE_SECONDS - (time.time_ns() - began) / 1e9, 0))
    return [(await handle.result_async(timeout=30) - began) / 1e6 for began, handle in sent[WARM_UP:]]


async def loaded(client: Client, database: Database, rate: float, every: float) -> list[float]:
    """The same at `rate` tasks a second: each `every` seconds as many as go into them, by one call of `map`."""
    submit = stamp.options(client=client)
    group = max(int(rate * every), 1)
    begun: dict[str, int] = {}
    start = time.monotonic()
    for turn in range(int(LOAD_SECONDS / every)):
        await asyncio.sleep(max(start + turn * every - time.monotonic(), 0))
        began = time.time_ns()
        for handle in await submit.map_async(range(group)):
            begun[handle.id] = began
    found: list[float] = []
    end = time.monotonic() + 30
    while len(found) < len(begun) and time.monotonic() < end:
        await asyncio.sleep(0.5)
        async with database.connection() as tx:
            rows = await tx.fetch(
                "select id, result::text::bigint as at from tasks where type = $1 and status = 'COMPLETED'", stamp.name
            )
        found = [(row["at"] - begun[str(row["id"])]) / 1e6 for row in rows if str(row["id"]) in begun]
    if len(found) < len(begun):
        raise TimeoutError(f"{len(found)} of {len(begun)} tasks were done 30 s after the last was submitted")
    return found


@dataclass(frozen=True, slots=True)
class Beside:
    """Milliseconds of what a submit cannot do without."""

    post: list[float]
    commit: list[float]


async def beside(database: Database, stage: Stage) -> Beside:
    """A POST that writes nothing, and a commit of one row, at the same pace."""
    posts, commits = [], []
    async with server(stage) as port:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        async with database.connection() as tx:
            await tx.execute("create table if not exists bench_commits (id uuid primary key, said text)")
            for _ in range(WARM_UP + COUNT // 2):
                began = time.perf_counter()
                await connection.ask(request(PATH, stage.key, BODY))
                posts.append(1e3 * (time.perf_counter() - began))
                began = time.perf_counter()
                await tx.execute("insert into bench_commits values ($1, $2)", uuid4(), "x")
                commits.append(1e3 * (time.perf_counter() - began))
                await asyncio.sleep(PACE_SECONDS)
            await tx.execute("drop table bench_commits")
    return Beside(posts[WARM_UP:], commits[WARM_UP:])


def histogram(values: list[float]) -> list[tuple[str, float]]:
    """Bars: up to so many milliseconds, and the share of `values` there in percent."""
    bars, low = [], 0.0
    for high in BUCKETS_MS:
        bars.append((f"≤ {high}", 100 * sum(low < value <= high for value in values) / len(values)))
        low = high
    return bars
