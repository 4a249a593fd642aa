"""`make bench-scaling`: a drain by 1, 2, 4 and 8 workers, and submits to 1 and 2 API processes, on this one machine."""

import asyncio

from bench import filling
from bench.drain import drained
from bench.page import SCALING, machine, write
from bench.submits import BATCH, BODY, rate, request
from core.config import settings
from core.database import Database
from services.dev.stage import Stage, stage

BEGIN, END = "<!-- scaling: begin -->", "<!-- scaling: end -->"
KIND, COUNT = "bench:noop", 50_000
WORKERS, APIS = (1, 2, 4, 8), (1, 2)
BATCHES = 60


async def drains(database: Database, ground: Stage) -> list[str]:
    """By workers."""
    lines = ["| workers, two children each | tasks/s | CPU of all, us a task |", "|---|---|---|"]
    for workers in WORKERS:
        await filling.empty(database)
        await filling.backlog(database, KIND, COUNT, ground.owner)
        await filling.settle(database)
        made = await drained(database, ground, KIND, COUNT, workers=workers, TASKFLOW_WORKER_CHILDREN="2")
        print(f"{workers} workers: {made.rate:,.0f} tasks/s", flush=True)
        lines.append(f"| {workers} | {made.rate:,.0f} | {1e6 * sum(made.cpu.values()) / COUNT:,.0f} |")
    return lines


async def submits(ground: Stage) -> list[str]:
    """By API processes."""
    lines = ["| API processes | one a request, tasks/s | by 500, tasks/s |", "|---|---|---|"]
    batch = b'{"tasks":[' + b",".join([BODY] * BATCH) + b"]}"
    free = {"RATE_LIMIT_SUBMIT_PER_MINUTE": "100000000"}
    for number in APIS:
        members = [ground.fleet.api(**free) for _ in range(number)]
        ground.fleet.ready(*members)
        ports = [int(member.env["TASKFLOW_API_PORT"]) for member in members]
        ones = await asyncio.gather(
            *(rate(port, 16 // number, lambda: request("/v1/tasks", ground.key, BODY)) for port in ports)
        )
        many = await asyncio.gather(
            *(rate(port, 2, lambda: request("/v1/tasks:batch", ground.key, batch), BATCHES) for port in ports)
        )
        ground.fleet.stop(*members)
        print(f"{number} APIs: {sum(ones):,.0f} requests/s, {BATCH * sum(many):,.0f} tasks/s by 500", flush=True)
        lines.append(f"| {number} | {sum(ones):,.0f} | {BATCH * sum(many):,.0f} |")
    return lines


async def measure() -> list[str]:
    """Run everything; the page's lines."""
    with stage(("bench.tasks",), schedulers=1, workers=0) as ground:
        async with Database(settings.database_url, name="tf-bench", command_seconds=600.0) as database:
            return [machine(), "", *await drains(database, ground), "", *await submits(ground)]


def main() -> None:
    """Measure, print, and keep."""
    lines = asyncio.run(measure())
    print("\n".join(lines))
    write(lines, BEGIN, END, SCALING)


if __name__ == "__main__":
    main()
