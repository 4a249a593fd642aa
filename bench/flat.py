"""`make bench-flat`: what a drain costs beside millions of rows. Takes about half an hour, and 10 GB of disk.

Each figure is a ratio to a drain of 50,000 beside nothing, measured just before it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench import filling
from bench.drain import Drain, drained, worker_count
from bench.latency import latencies, spread
from bench.page import machine, write
from core.config import settings
from core.database import Database
from services.dev.stage import Stage, stage
from taskflow_queue import Client

BEGIN, END = "<!-- flat: begin -->", "<!-- flat: end -->"
KIND = "bench:noop"
PLAIN, QUEUED, HISTORY, HELD = 50_000, 1_000_000, 10_000_000, 3_000_000
_HAPPENED = "select last_value from task_event_seq"
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
        self.waits: list[str] = []

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

    async def held(self, *, redis: bool = True, killed: bool = False) -> None:
        """Somebody's transaction that stays open: nothing that the drain leaves dead can be cleaned away.

        With `killed`, the leader is killed when half is done.
        """
        env = {} if redis else {"TASKFLOW_REDIS": "off"}
        off = "" if redis else ", Redis off"
        name = f"{HELD:,} claims under an open snapshot{', the leader killed' if killed else ''}{off}"
        plain = await self._plain(**env)
        if not killed:
            await self._waits(f"beside nothing{off}", **env)
        await filling.empty(self._database)
        await filling.backlog(self._database, KIND, HELD, self._ground.owner)
        await filling.settle(self._database)
        async with self._snapshot():
            began = time.time()
            async with asyncio.TaskGroup() as group:
                if killed:
                    group.create_task(self._kill_halfway())
                made = await self._drain(HELD, **env)
            async with self._database.connection() as tx:
                parts = await tx.fetch(_PACE, began)
            if not killed:
                await self._waits(f"after {name}", **env)
        shares = [row["done"] for row in parts[1:9]]  # without the start and the end
        say(f"  by tenths of the time: {shares}")
        self._keep(name, plain, made)
        self.rows.append(f"| the same, its last tenth against its first | | | {shares[-1] / shares[0]:.2f} | 0.9 |")

    async def _waits(self, what: str, **env: str) -> None:
        """How long a task waits that finds idle workers, and the same from the death of the leader on."""
        await self._wait(what, **env)
        self._kill_leader()
        await self._wait(f"{what}, from the death of the leader on", **env)

    async def _wait(self, what: str, **env: str) -> None:
        hands = [self._ground.fleet.worker("bench.tasks", **env) for _ in range(worker_count())]
        self._ground.fleet.ready(*hands)
        async with Client(url=self._ground.url, api_key=self._ground.key) as client:
            found = await latencies(client)
        self._ground.fleet.stop(*hands)
        self.waits.append(f"| {what} | {spread(found)} | {max(found):.0f} |")
        say(self.waits[-1])

    def _kill_leader(self) -> None:
        """The other scheduler leads from then on, and another one stands by."""
        leader = self._ground.fleet.leader()
        if leader is None:
            raise RuntimeError("no scheduler leads")
        self._ground.fleet.kill(leader)
        self._ground.fleet.replace(leader)
        say(f"  {leader.name} was killed")

    async def _kill_halfway(self) -> None:
        async with self._database.connection() as tx:
            first = await tx.fetchval(_HAPPENED)
        happened = 0
        while happened < HELD:  # of two events a task
            await asyncio.sleep(0.5)
            async with self._database.connection() as tx:
                happened = await tx.fetchval(_HAPPENED) - first
        self._kill_leader()

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
    with stage(("bench.tasks",), schedulers=2, workers=0) as ground:
        async with Database(settings.database_url, name="tf-bench", command_seconds=1200.0) as database:
            course = Course(database, ground)
            say("a long backlog")
            await course.queued()
            say("a snapshot held open")
            await course.held()
            await course.held(killed=True)
            await course.held(redis=False)
            say("a long history")
            await course.history()
    head = ["| drain, 2 workers | beside nothing, tasks/s | measured, tasks/s | ratio | target |", "|---" * 5 + "|"]
    waits = ["| idle workers: submit to handler start, ms | p50 | p99 | most |", "|---" * 4 + "|"]
    return [machine(), "", *head, *course.rows, "", *waits, *course.waits]


def main() -> None:
    """Measure, print, and keep."""
    lines = asyncio.run(measure())
    print("\n".join(lines))
    write(lines, BEGIN, END)


if __name__ == "__main__":
    main()
