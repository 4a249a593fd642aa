"""`make bench`: prints the tables and writes them into docs/performance.md between its markers."""

import asyncio

from bench.drain import Drain, drain, worker_count
from bench.latency import latencies, percentile
from bench.page import machine, write
from bench.verbs import table, verbs
from core.config import settings
from core.database import Database
from services.dev.stage import stage
from taskflow_queue import Client

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
RUNS = (("bench:noop", 10_000), ("bench:noop", 50_000), ("bench:sync_noop", 10_000))


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
            spent = await verbs(database, ground.owner)
            worker = ground.fleet.worker("bench.tasks")
            ground.fleet.ready(worker)
            found = await latencies(Client(url=ground.url, api_key=ground.key))
    lines = [machine(), "", f"Drain, {worker_count()} workers:", "", *rows(drains), ""]
    lines += ["Microseconds of CPU a task, each verb alone on one connection:", "", *table(spent), ""]
    share = ", ".join(f"{name} {percentile(found, value):.1f} ms" for name, value in (("p50", 0.5), ("p99", 0.99)))
    return [*lines, f"Submit over REST to handler start, one task every 20 ms, idle worker: {share}."]


def main() -> None:
    """Measure, print, and keep."""
    lines = asyncio.run(measure())
    print("\n".join(lines))
    write(lines, BEGIN, END)


main()
