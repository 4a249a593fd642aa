"""`make bench`: prints the tables and writes them into docs/performance.md between its markers, its plots beside it."""

import asyncio

from bench import filling, latency, leader, submits, worker
from bench.drain import Drain, drain, worker_count
from bench.page import DOCS, machine, write
from bench.plot import bars
from bench.verbs import table, verbs
from core.config import settings
from core.database import Database
from services.dev.stage import Stage, stage
from taskflow_queue import Client

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
PLOTS = DOCS / "performance"
RUNS = (("bench:noop", 10_000), ("bench:noop", 50_000), ("bench:noop", 300_000), ("bench:sync_noop", 50_000))
STAGES = ("postgres", "worker", "children", "redis", "scheduler")
HALF = 0.5


def rows(drains: list[Drain]) -> list[str]:
    """The drain tables."""
    lines = [
        "| tasks | kind | tasks/s | WAL bytes a task | commits per 1,000 | WAL fsyncs per 1,000 (target 15) |",
        "|---" * 6 + "|",
    ]
    lines += [
        f"| {d.tasks:,} | {d.kind} | {d.rate:,.0f} | {d.spent.wal_bytes / d.tasks:,.0f} |"
        f" {1000 * d.spent.commits / d.tasks:,.1f} | {1000 * d.spent.fsyncs / d.tasks:,.1f} |"
        for d in drains
    ]
    lines += ["", "CPU seconds per 1,000 tasks (target: 0.12), start-up of the workers included:", ""]
    lines += ["| tasks | kind | " + " | ".join(STAGES) + " | together |", "|---" * (len(STAGES) + 3) + "|"]
    for d in drains:
        spent = [1000 * d.cpu[name] / d.tasks for name in STAGES]
        cells = " | ".join(f"{one:.3f}" for one in spent)
        lines.append(f"| {d.tasks:,} | {d.kind} | {cells} | {sum(spent):.3f} |")
    return lines


async def latencies(database: Database, ground: Stage, rate: float) -> tuple[list[str], list[float]]:
    """The latency table, and the idle figures themselves."""
    await filling.empty(database)
    await filling.settle(database)
    hands = [ground.fleet.worker("bench.tasks") for _ in range(worker_count())]
    ground.fleet.ready(*hands)
    async with Client(url=ground.url, api_key=ground.key) as client:
        idle = await latency.latencies(client)
        busy = {every: await latency.loaded(client, database, rate, every) for every in latency.GROUP_SECONDS}
    ground.fleet.stop(*hands)
    other = await latency.beside(database, ground)
    lines = [
        "| milliseconds | p50 | p99 |",
        "|---|---|---|",
        f"| submit over REST by the SDK to handler start, idle, one task every 20 ms | {latency.spread(idle)} |",
        *(
            f"| the same at {rate:,.0f} tasks/s, half of the drain of 50,000, a group every {1000 * every:g} ms"
            f" | {latency.spread(found)} |"
            for every, found in busy.items()
        ),
        f"| beside it: a POST that writes nothing, over a socket | {latency.spread(other.post)} |",
        f"| beside it: a commit of one row | {latency.spread(other.commit)} |",
    ]
    return lines, idle


def draw(drains: list[Drain], idle: list[float]) -> None:
    """The plots."""
    PLOTS.mkdir(exist_ok=True)
    plain = [d for d in drains if d.kind == "bench:noop"]
    rates = {f"{d.tasks:,} queued": [("rate", d.rate)] for d in plain}
    (PLOTS / "rate.svg").write_text(bars("Drain of async no-ops, 2 workers", "tasks/s", rates), encoding="utf-8")
    costs = {
        f"{d.tasks:,} {d.kind.partition(':')[2]}": [(name, 1e6 * d.cpu[name] / d.tasks) for name in STAGES]
        for d in drains
    }
    (PLOTS / "stages.svg").write_text(bars("CPU a task by stage, start-up included", "us", costs), encoding="utf-8")
    shares = {name: [("share", share)] for name, share in latency.histogram(idle)}
    title = "Submit over REST to handler start, idle: share of tasks by milliseconds"
    (PLOTS / "latency.svg").write_text(bars(title, "%", shares), encoding="utf-8")


async def measure() -> list[str]:
    """Run everything; the page's lines."""
    drains: list[Drain] = []
    with stage(("bench.tasks",), schedulers=1, workers=0) as ground:
        ground.fleet.env["RATE_LIMIT_SUBMIT_PER_MINUTE"] = "100000000"
        ground.fleet.stop(ground.api)
        ground.api = ground.fleet.api()
        ground.fleet.ready(ground.api)
        async with Database(settings.database_url, name="tf-bench", command_seconds=600.0) as database:
            for kind, count in RUNS:
                drains.append(await drain(database, ground, kind, count, workers=worker_count()))
                print(f"{count:,} {kind}: {drains[-1].rate:,.0f} tasks/s", flush=True)
            spent = await verbs(database, ground.owner)
            alone = await worker.figures(database, ground)
            half, idle = await latencies(database, ground, HALF * drains[1].rate)
            sent = await submits.figures(ground)
            led = await leader.figures(database, ground)
    draw(drains, idle)
    return [
        machine(), "", f"Drain, {worker_count()} workers:", "", *rows(drains), "", "![](performance/rate.svg)",
        "![](performance/stages.svg)", "", "Microseconds of CPU a task, each verb alone on one connection:", "",
        *table(spent), "", *half, "", "![](performance/latency.svg)", "", *sent, "", *alone, "", *led,
    ]  # fmt: skip


def main() -> None:
    """Measure, print, and keep."""
    lines = asyncio.run(measure())
    print("\n".join(lines))
    write(lines, BEGIN, END)


main()
