"""The whole of a term at work: kopf's watches, the push from PostgreSQL, the scaling loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from core import config
from core import queue_manager as queue
from services.operator import default_queue, main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.integration.operator.world import World

BOUND = 20.0  # far below the poll, so nothing here is found by counting


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "DATABASE_URL": database_url,
        "TASKFLOW_NAMESPACE": "team",
        "TASKFLOW_POLL_SECONDS": "60",
        "TASKFLOW_WORKER_IMAGE": "example.org/worker:1",
        "TASKFLOW_DEFAULT_QUEUE": '{"worker": {"concurrency": 4}}',
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    config.reload()


@asynccontextmanager
async def _at_work(world: World) -> AsyncIterator[asyncio.Task[None]]:
    keeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    work = asyncio.create_task(main.lead(world.cluster._api, world.term, keeper, ("team",), main.Life()))  # type: ignore[arg-type]
    try:
        yield work
    finally:
        keeper.set_exception(main.Deposed("the test is over"))
        with pytest.raises(main.Deposed):
            await work


async def _until(world: World, holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(BOUND):
        while not holds():
            async with world.api.news:
                await world.api.news.wait()


@pytest.mark.usefixtures("settings")
async def test_a_task_brings_the_first_worker_by_a_push(world: World) -> None:
    async with _at_work(world):
        await _until(world, lambda: world.deployed("default"))
        await _until(world, lambda: world.condition("Ready", "default"))
        await world.submit(1, name="default")
        async with world.db.connection() as tx:
            await queue.notify_wake(tx, ["default"])
        await _until(world, lambda: world.replicas("default") == 1)


@pytest.mark.usefixtures("settings")
async def test_a_taskqueue_that_comes_is_seen_at_once(world: World) -> None:
    async with _at_work(world):
        await _until(world, lambda: world.deployed("default"))
        world.taskqueue("late")
        await _until(world, lambda: world.deployed("late"))


async def test_the_default_taskqueue_is_made_once_and_never_changed(world: World) -> None:
    assert await default_queue.ensure(world.cluster, "team", '{"paused": true}')
    assert not await default_queue.ensure(world.cluster, "team", '{"paused": false}')
    assert world.api.get("taskqueues", "team", "default")["spec"] == {"paused": True}
    assert not await default_queue.ensure(world.cluster, "other", "")
    assert not await default_queue.ensure(world.cluster, "other", "[1]")
