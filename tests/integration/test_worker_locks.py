"""A worker beside transactions of others that stay open, and its own transactions: none of them stops the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from core import queue_manager as queue
from core.pool import Database
from tests.lookout import happens
from tests.system.proxy import Proxy
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BEATS = "select beat_seq from workers where state = 'alive'"
# What the sessions of workers do at this moment.
SESSIONS = """
select state, left(query, 60) as query from pg_stat_activity
where datname = current_database() and application_name like 'tf-worker%' and state is not null
"""


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


async def one(home: House, query: str, *values: Any) -> Any:
    async with home.database.connection() as tx:
        return await tx.fetchval(query, *values)


async def test_locked_rows_stop_neither_other_tasks_nor_heartbeats(home: House, tmp_path: Path) -> None:
    over = tmp_path / "over"
    async with Database(home.database._url, name="tf-locker", size=1, idle_in_transaction_session_timeout="0") as other:
        with WorkerProcess({"DATABASE_URL": home.database._url}):
            ending = await home.submit("abide", until=str(over))
            reporting = await home.submit("steps", count=600)
            for task in ending + reporting:
                await home.becomes(task, "IN_PROGRESS")
            async with other.begin() as tx:
                await tx.execute("select from tasks where id = any ($1) for update", ending + reporting)
                over.touch()
                before = await one(home, BEATS)
                for _ in range(3):  # one after the other, so that each waits for the ones before it to be recorded
                    others = await home.submit("noop", 5) + await home.submit("anoop", 5)
                    rows = await home.ended(others, within=8)
                    assert {row["status"] for row in rows} == {"COMPLETED"}

                async def beats() -> bool:
                    return bool(await one(home, BEATS) >= before + 3)

                await happens(beats, within=8)
                assert await home.statuses(ending + reporting) == {"IN_PROGRESS"}
            assert (await home.becomes(ending[0], "COMPLETED"))["attempt"] == 1
            assert [kind for kind, _ in await home.events(ending[0])] == ["CREATED", "STARTED", "COMPLETED"]

            async def reported() -> bool:
                return (await home.row(reporting[0]))["progress"] is not None

            await happens(reported)
            async with home.database.begin() as tx:
                await queue.cancel(tx, reporting, owner_id=None, force=True, by="test")


async def test_no_transaction_of_a_worker_spans_a_round_trip(home: House) -> None:
    """A process that freezes between two statements of one transaction keeps its locks: there is no such moment."""
    seen: dict[str, int] = {}
    with Proxy(home.database._url) as proxy:
        proxy.latency = 0.02  # makes every moment between two statements that long
        with WorkerProcess({"DATABASE_URL": proxy.url}, LOG_LEVEL="DEBUG"):
            ids = [
                task
                for name in ("noop", "anoop", "loud", "aloud", "fail_first", "steps")
                for task in await home.submit(name, 1 if name == "steps" else 10)
            ]
            ended = asyncio.ensure_future(home.ended(ids, within=60))
            async with Database(home.database._url, name="tf-watch", size=1) as watch, watch.connection() as tx:
                while not ended.done():
                    for row in await tx.fetch(SESSIONS):
                        state = row["state"]
                        seen[state] = seen.get(state, 0) + 1
                        assert not state.startswith("idle in transaction"), row["query"]
                    await asyncio.sleep(0)
            assert {row["status"] for row in await ended} == {"COMPLETED"}
    assert seen["idle"] > 50
    assert await one(home, "select count(*) from task_logs") >= 20
