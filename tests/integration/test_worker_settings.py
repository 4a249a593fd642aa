"""What a queue's row and the pod say to a worker: the number of its children, defaults of tasks, where it lives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.integration.test_worker_cordon import Probed
from tests.lookout import happens
from tests.signals import until
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


async def say(home: House, **columns: Any) -> None:
    async with home.database.begin() as tx:
        for name, value in columns.items():
            await tx.execute(f"update queues set {name} = $1 where name = 'default'", value)


async def slots(home: House, number: int) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        async with home.database.connection() as tx:
            return await tx.fetchrow("select * from workers where state = 'alive' and sync_slots = $1", number)

    return dict(await happens(there, 20))


async def test_the_number_of_children_follows_the_queue_without_a_restart(
    home: House, database_url: str, tmp_path: Path
) -> None:
    await say(home, concurrency=1)
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_QUEUES="default") as worker:
        worker.ready()
        first = await slots(home, 1)
        await say(home, concurrency=3)
        assert (await slots(home, 3))["async_slots"] == 300
        mark, over = tmp_path / "mark", tmp_path / "over"
        running = await home.submit("stay", 3, until=str(over), mark=str(mark))
        until(lambda: mark.exists() and len(mark.read_text().splitlines()) == 3)
        await say(home, concurrency=1)
        assert (await slots(home, 1))["id"] == first["id"]
        over.touch()
        rows = await home.ended(running)
        assert {(row["status"], row["attempt"]) for row in rows} == {("COMPLETED", 1)}
        until(lambda: len(worker.called("taskflow-child")) == 1)
        await home.ended(await home.submit("noop", 4) + await home.submit("anoop", 100))
        await say(home, concurrency=None)
        await slots(home, 2)
        until(lambda: len(worker.called("taskflow-child")) == 2)
        assert worker.process.poll() is None


async def test_a_worker_of_several_queues_keeps_its_own_number(home: House, database_url: str) -> None:
    await say(home, concurrency=3)
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_QUEUES="default,other") as worker:
        worker.ready()
        await slots(home, 2)


async def test_a_queues_defaults_hold_where_neither_task_nor_definition_says_something(
    home: House, database_url: str
) -> None:
    await say(home, default_max_attempts=2, default_timeout_seconds=0.5)
    with WorkerProcess({"DATABASE_URL": database_url}):
        [failing] = await home.submit("fail")
        [own] = await home.submit("fail", _max_attempts=1)
        [slow] = await home.submit("asleep", seconds=60, _max_attempts=1)
        [long] = await home.submit("asleep", seconds=1.0, _timeout_seconds=30.0)
        rows = {row["id"]: row for row in await home.ended([failing, own, slow, long])}
    assert [rows[task]["retry_count"] for task in (failing, own)] == [2, 1]
    assert "time limit of 0.5 s" in json.loads(rows[slow]["error"])["message"]
    assert rows[long]["status"] == "COMPLETED"


async def test_a_pod_introduces_itself(home: House, database_url: str) -> None:
    where = {"POD_NAME": "text-7d", "POD_UID": "u-1", "NAMESPACE": "prod", "NODE_NAME": "n1"}
    with WorkerProcess({"DATABASE_URL": database_url, **{f"TASKFLOW_{name}": said for name, said in where.items()}}):
        row = await slots(home, 2)
    assert json.loads(row["facts"]) == {"pod": "text-7d", "pod_uid": "u-1", "namespace": "prod", "node": "n1"}


async def test_metrics_tell_slots_and_waits(home: House, database_url: str) -> None:
    with Probed({"DATABASE_URL": database_url}) as worker:
        worker.started()
        [busy] = await home.submit("sleep", seconds=60)
        await home.becomes(busy, "IN_PROGRESS")
        await home.ended(await home.submit("anoop", 50))

        slots = {"sync_busy": 1.0, "sync_free": 1.0, "async_free": 200.0}
        lines = [f'taskflow_worker_slots{{state="{state}"}} {number}' for state, number in slots.items()]

        def told() -> str:  # they are counted at each beat
            text = httpx2.get(f"http://127.0.0.1:{worker.port}/metrics").text
            return text if all(line in text for line in lines) else ""

        text = until(told)
    assert 'taskflow_task_wait_seconds_count{queue="default"} 51.0' in text
    assert 'taskflow_task_wait_seconds_bucket{le="3600.0",queue="default"} 51.0' in text
    assert 'taskflow_task_run_seconds_count{queue="default",type="tests.handlers:anoop"} 50.0' in text
