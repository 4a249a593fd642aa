"""`make bench-flat`: what a drain costs beside millions of rows. Takes about a quarter of an hour, and 10 GB of disk.

Each figure is a ratio to a drain of 50,000 beside nothing, measured just before it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench import filling
from bench.drain import Drain, drained, worker_count
from bench.page import machine, write
from core.config import settings
from core.database import Database
from services.dev.stage import Stage, stage

BEGIN, END = "<!-- flat: begin -->", "<!-- flat: end -->"
KIND = "bench:noop"
PLAIN, QUEUED, HISTORY, HELD = 50_000, 1_000_000, 10_000_000, 3_000_000
_PACE = """
with ended as materialized (
    select extract(epoch from finished_at) as at from tasks
    where status = 'COMPLETED' and finished_at > to_timestamp($1)
)
select width_bucket(at, (select min(at) from ended), (select max(at) from ended), 10) as part, count(*) as done
from ended group by part order by part
"""


def say(text: str) -> None:
    """Long work shows how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Course:
    """The figures, one after the other."""

    def __init__(self, database: Database, ground: Stage) -> None:
        self._database, self._ground = database, ground
        self.rows: list[str] = []

    async def _drain(self, count: int, **env: str) -> Drain:
        made = await drained(self._database, self._ground, KIND, count, workers=worker_count(), **env)
        say(f"  {count:,}: {made.rate:,.0f} tasks/s")
        return made

    async def _plain(self, **env: str) -> Drain:
        await filling.empty(self._database)
        await filling.backlog(self._database, KIND, PLAIN, self._ground.owner)
        await filling.settle(self._database)
        return await self._drain(PLAIN, **env)

    def _keep(self, what: str, plain: Drain, other: Drain) -> None:
        ratio = other.rate / plain.rate
        self.rows.append(f"| {what} | {plain.rate:,.0f} | {other.rate:,.0f} | {ratio:.2f} | 0.9 |")

    async def queued(self) -> None:
        """A long backlog."""
        plain = await self._plain()
        await filling.empty(self._database)
        await filling.backlog(self._database, KIND, QUEUED, self._ground.owner)
        await filling.settle(self._database)
        self._keep(f"{QUEUED:,} queued", plain, await self._drain(QUEUED))

    async def history(self) -> None:
        """A long history."""
        plain = await self._plain()
        await filling.empty(self._database)
        say(f"  writing {HISTORY:,} rows of history")
        await filling.history(self._database, KIND, HISTORY, self._ground.owner)
        await filling.backlog(self._database, KIND, PLAIN, self._ground.owner)
        await filling.settle(self._database)
        self._keep(f"{PLAIN:,} queued, {HISTORY:,} finished", plain, await self._drain(PLAIN))

    async def held(self, *, redis: bool) -> None:
        """Somebody's transaction that stays open: nothing that the drain leaves dead can be cleaned away."""
        env = {} if redis else {"TASKFLOW_REDIS": "off"}
        plain = await self._plain(**env)
        await filling.empty(self._database)
        await filling.backlog(self._database, KIND, HELD, self._ground.owner)
        await filling.settle(self._database)
        async with self._snapshot():
            began = time.time()
            made = await self._drain(HELD, **env)
            async with self._database.connection() as tx:
                parts = await tx.fetch(_PACE, began)
        shares = [row["done"] for row in parts[1:9]]  # without the start and the end
        say(f"  by tenths of the time: {shares}")
        name = f"{HELD:,} claims under an open snapshot{'' if redis else ', Redis off'}"
        self._keep(name, plain, made)
        self.rows.append(f"| the same, its last tenth against its first | | | {shares[-1] / shares[0]:.2f} | 0.9 |")

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[None]:
        other = await self._database.own_connection()
        try:
            await other.execute("begin isolation level repeatable read")
            await other.fetch("select count(*) from queues")
            yield
            await other.execute("commit")
        finally:
            await other.close()


async def measure() -> list[str]:
    """Run everything; the page's lines."""
    with stage(("bench.tasks",), schedulers=1, workers=0) as ground:
        async with Database(settings.database_url, name="tf-bench", command_seconds=1200.0) as database:
            course = Course(database, ground)
            say("a long backlog")
            await course.queued()
            say("a snapshot held open")
            await course.held(redis=True)
            await course.held(redis=False)
            say("a long history")
            await course.history()
    head = ["| drain, 2 workers | beside nothing, tasks/s | measured, tasks/s | ratio | target |", "|---" * 5 + "|"]
    return [machine(), "", *head, *course.rows]


def main() -> None:
    """Measure, print, and keep."""
    lines = asyncio.run(measure())
    print("\n".join(lines))
    write(lines, BEGIN, END)


if __name__ == "__main__":
    main()
