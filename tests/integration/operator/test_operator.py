"""The whole of a term at work: kopf's watches, the push from PostgreSQL, the scaling loop."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from core import config
from core import queue_manager as queue
from services.operator import default_queue, kopf_app, listing, main, watching
from services.operator.kopf_app import operator_settings

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
async def _at_work(world: World, *namespaces: str) -> AsyncIterator[asyncio.Task[None]]:
    keeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    places, api = namespaces or ("team",), world.cluster._api
    work = asyncio.create_task(main.lead(api, world.term, keeper, places, main.Life()))  # type: ignore[arg-type]
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
    await default_queue.ensure(world.cluster, "team", '{"paused": true}', world.clock, release="team/rel")
    await default_queue.ensure(world.cluster, "team", '{"paused": false}', world.clock, release="team/rel")
    assert world.api.get("taskqueues", "team", "default")["spec"] == {"paused": True}
    await default_queue.ensure(world.cluster, "other", "", world.clock, release="team/rel")
    await default_queue.ensure(world.cluster, "other", "[1]", world.clock, release="team/rel")
    assert ("taskqueues", "other", "default") not in world.api.objects


async def test_the_default_taskqueue_is_tried_again_until_the_api_server_lets_us(world: World) -> None:
    world.api.fail("GET .*/taskqueues/default", 403, times=2)
    world.api.fail("POST .*/taskqueues", 503)
    await default_queue.ensure(world.cluster, "team", "{}", world.clock, release="team/rel")
    assert world.api.get("taskqueues", "team", "default")["spec"] == {}


@pytest.mark.usefixtures("settings")
async def test_a_watch_that_is_refused_in_one_namespace_stops_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient() -> Any:
        chosen = operator_settings()
        chosen.networking.error_backoffs = (0.05,)
        return chosen

    monkeypatch.setattr(kopf_app, "operator_settings", impatient)
    monkeypatch.setattr(watching, "AGAIN_SECONDS", 0.1)
    refused = re.compile("GET .*/namespaces/other/pods.*watch=true")
    world.api.fail(refused.pattern, 403, times=10_000)
    async with _at_work(world, "other", "team"):
        await _until(world, lambda: world.deployed("default"))
        await _until_asked(world, refused, 5)  # kopf gives up after two
        world.taskqueue("late")
        await _until(world, lambda: world.deployed("late"))
        world.taskqueue("far", namespace="other")
        await _until(world, lambda: ("deployments", "other", "taskflow-far") in world.api.objects)


async def _until_asked(world: World, what: re.Pattern[str], times: int) -> None:
    async with asyncio.timeout(BOUND):
        while sum(bool(what.search(f"{method} {path}")) for method, path in world.api.requests) < times:
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("settings")
async def test_a_namespace_that_comes_later_is_served_and_watched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "RETRY_SECONDS", 0.1)
    world.api.fail("GET .*/namespaces/later/", 403, times=10_000)
    async with _at_work(world, "later", "team"):
        await _until(world, lambda: world.deployed("default"))
        world.api.faults.clear()
        world.taskqueue("first", namespace="later")
        await _until(world, lambda: ("deployments", "later", "taskflow-first") in world.api.objects)
        await _until_asked(world, re.compile("GET .*/namespaces/later/taskqueues.*watch=true"), 1)
        world.taskqueue("second", namespace="later")
        await _until(world, lambda: ("deployments", "later", "taskflow-second") in world.api.objects)
