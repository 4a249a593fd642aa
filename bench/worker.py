"""A worker by itself: from the start of its process to the claim of its first task, and what it holds when idle."""

import asyncio
import time
from pathlib import Path
from statistics import median

import psutil

from bench.drain import fill
from core.database import Database
from services.dev.stage import Stage

ROUNDS = 5
PATIENCE_SECONDS = 30.0
IDLE_SECONDS = 3.0


def pss_mib(pid: int) -> float:
    """The memory of a process and all below it, MiB: what they share is counted once."""
    root = psutil.Process(pid)
    total = 0
    for process in [root, *root.children(recursive=True)]:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


async def _first_claim(database: Database) -> float:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        async with database.connection() as tx:
            at = await tx.fetchval("select extract(epoch from min(started_at))::float8 from tasks")
        if at is not None:
            return float(at)
        await asyncio.sleep(0.01)
    raise TimeoutError(f"no task was claimed within {PATIENCE_SECONDS:.0f} s")


async def figures(database: Database, stage: Stage) -> list[str]:
    """The page's table: medians."""
    cold, held = [], []
    for _ in range(ROUNDS):
        async with database.connection() as tx:
            await tx.execute("truncate tasks, task_events, task_logs")
        await fill(database, "bench:noop", 1, stage.owner)
        began = time.time()
        worker = stage.fleet.worker("bench.tasks", TASKFLOW_WORKER_CHILDREN="2")
        cold.append(await _first_claim(database) - began)
        stage.fleet.ready(worker)
        await asyncio.sleep(IDLE_SECONDS)
        held.append(pss_mib(worker.pid))
        stage.fleet.stop(worker)
    return [
        "| a worker with two children | median | worst | target |",
        "|---|---|---|---|",
        f"| start of the process to its first claim, s | {median(cold):.2f} | {max(cold):.2f} | 0.7 |",
        f"| idle PSS of all its processes, MiB | {median(held):.0f} | {max(held):.0f} | 90 |",
    ]
