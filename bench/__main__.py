"""`make bench`: prints the tables and writes them into docs/performance.md between its markers."""

import asyncio
import platform
import subprocess
from pathlib import Path

import psutil

from bench.drain import Drain, drain, worker_count
from bench.latency import latencies, percentile
from core.config import settings
from core.database import Database
from services.dev.stage import stage
from taskflow_queue import Client

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
RUNS = (("bench:noop", 10_000), ("bench:noop", 50_000), ("bench:sync_noop", 2_000))


def machine() -> str:
    """What this ran on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"commit `{commit.stdout.strip() or 'unknown'}`, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def rows(drains: list[Drain]) -> list[str]:
    """The drain tables."""
    lines = ["| tasks | kind | tasks/s | WAL bytes a task | commits per 1,000 |", "|---|---|---|---|---|"]
    lines += [
        f"| {d.tasks:,} | {d.kind} | {d.rate:,.0f} | {d.spent.wal_bytes / d.tasks:,.0f} |"
        f" {1000 * d.spent.commits / d.tasks:,.1f} |"
        for d in drains
    ]
    names = sorted(drains[0].cpu)
    lines += ["", "CPU milliseconds per 1,000 tasks, by stage (start-up of the workers included):", ""]
    lines += ["| tasks | kind | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    lines += [
        f"| {d.tasks:,} | {d.kind} | " + " | ".join(f"{1e6 * d.cpu[name] / d.tasks:,.0f}" for name in names) + " |"
        for d in drains
    ]
    return lines


async def measure() -> list[str]:
    """Run everything; the page's lines."""
    drains: list[Drain] = []
    with stage(("bench.tasks",), schedulers=1, workers=0) as ground:
        async with Database(settings.database_url, name="tf-bench") as database:
            for kind, count in RUNS:
                drains.append(await drain(database, ground, kind, count, workers=worker_count()))
                print(f"{count:,} {kind}: {drains[-1].rate:,.0f} tasks/s")
            worker = ground.fleet.worker("bench.tasks")
            ground.fleet.ready(worker)
            found = await latencies(Client(url=ground.url, api_key=ground.key))
    lines = [machine(), "", f"Drain, {worker_count()} workers:", "", *rows(drains), ""]
    share = ", ".join(f"{name} {percentile(found, value):.1f} ms" for name, value in (("p50", 0.5), ("p99", 0.99)))
    return [*lines, f"Submit over REST to handler start, one task every 20 ms, idle worker: {share}."]


def main() -> None:
    """Measure, print, and keep."""
    lines = asyncio.run(measure())
    print("\n".join(lines))
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}", encoding="utf-8")


main()
