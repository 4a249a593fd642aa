from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from core import config, embedded
from core import queue_manager as queue
from services.api import submitting
from tests.conftest import SECRET_KEY
from tests.integration.api.conftest import PASSWORD, running
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.embedded import Servers
    from tests.integration.api.conftest import Api

TASK = {"type": "a:b"}


@pytest.fixture
async def own_api(
    own_servers: Servers, api_database: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Api, Servers]]:
    for name, value in {**own_servers.env(), "SECRET_KEY": SECRET_KEY}.items():
        monkeypatch.setenv(name, value)
    config.reload()
    async with running() as started:
        yield started, own_servers


@pytest.mark.fault
async def test_without_postgresql_every_path_says_so_and_all_recovers(own_api: tuple[Api, Servers]) -> None:
    api, servers = own_api
    async with api.person("ada") as ada:
        task = (await ada.post("/v1/tasks", json=TASK)).json()["id"]
        await asyncio.to_thread(embedded.stop_postgres, servers, "immediate")
        login = {"username": "ada", "password": PASSWORD}
        answers = [
            await ada.post("/v1/tasks", json=TASK),
            await ada.post("/v1/tasks", json=TASK, headers={"Idempotency-Key": "k"}),
            await ada.post("/v1/tasks:batch", json={"tasks": [TASK]}),
            await ada.get("/v1/tasks"),
            await ada.get(f"/v1/tasks/{task}"),
            await ada.get(f"/v1/tasks/{task}/events"),
            await ada.post(f"/v1/tasks/{task}:cancel"),
            await ada.get("/v1/queues"),
            await ada.get("/v1/workers"),
            await ada.get("/v1/api-keys"),
            await ada.post("/v1/api-keys", json={"name": "x"}),
            await api.anonymous.post("/v1/auth/token", json=login),
            await api.anonymous.get("/v1/tasks", headers={"x-api-key": f"tf_{'a' * 12}_{'b' * 43}"}),
        ]
        assert {
            (str(answer.request.url), answer.status_code) for answer in answers if answer.status_code != 503
        } == set()
        assert {answer.json()["code"] for answer in answers} <= {"unavailable", "commit_unknown"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        ready = await api.anonymous.get("/readyz")
        assert (ready.status_code, ready.json()["stores"]["postgresql"]) == (200, "down")
        await asyncio.to_thread(embedded.start_postgres, servers)

        async def works() -> bool:
            return (await ada.post("/v1/tasks", json=TASK)).status_code == 201

        assert await happens(works, within=10.0)
        assert (await ada.get(f"/v1/tasks/{task}")).json()["status"] == "QUEUED"
        assert (await api.anonymous.post("/v1/auth/token", json=login)).status_code == 200


def _losing(verb: Any, *, after: bool) -> Any:
    """The verb, once, with its connection cut before or after PostgreSQL did what it says."""
    cut = []

    async def broken(*given: Any) -> Any:
        if cut:
            return await verb(*given)
        cut.append(1)
        if after:
            await verb(*given)
        message = "cut"
        raise ConnectionResetError(message)

    return broken


async def _tasks(api: Api) -> int:
    async with api.parts.reads.connection() as tx:
        return int(await tx.fetchval("select count(*) from tasks"))


@pytest.mark.parametrize("keyed", [False, True])
async def test_an_answer_lost_after_the_commit_is_read_back(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, keyed: bool
) -> None:
    verb = "submit_keyed" if keyed else "submit"
    monkeypatch.setattr(queue, verb, _losing(getattr(queue, verb), after=True), raising=False)
    headers = {"Idempotency-Key": "k"} if keyed else {}
    async with api.person("ada") as ada:
        answers = await asyncio.gather(
            *(ada.post("/v1/tasks", json=TASK, headers=headers) for _ in range(1 if keyed else 5))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert {answer.headers.get("idempotent-replay") for answer in answers} == {None}
        assert await _tasks(api) == len(answers) == len({answer.json()["id"] for answer in answers})


async def test_an_answer_lost_before_the_commit_is_a_503_that_says_unknown(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "SETTLE_PAUSES", (0.0, 0.05))
    monkeypatch.setattr(queue, "submit", _losing(queue.submit, after=False), raising=False)
    async with api.person("ada") as ada:
        answer = await ada.post("/v1/tasks", json=TASK)
        assert (answer.status_code, answer.json()["code"]) == (503, "commit_unknown")
        assert "Idempotency-Key" in answer.json()["fix"]
        assert await _tasks(api) == 0
        # With a key the same loss needs no guess: it is sent again.
        monkeypatch.setattr(queue, "submit_keyed", _losing(queue.submit_keyed, after=False), raising=False)
        assert (await ada.post("/v1/tasks", json=TASK, headers={"Idempotency-Key": "k"})).status_code == 201
        assert await _tasks(api) == 1


async def test_while_one_waits_to_know_others_are_written(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "SETTLE_PAUSES", (30.0,))
    monkeypatch.setattr(queue, "submit", _losing(queue.submit, after=False), raising=False)
    async with api.person("ada") as ada:
        lost = asyncio.create_task(ada.post("/v1/tasks", json=TASK))
        assert await happens(lambda: _settling(api))
        assert (await ada.post("/v1/tasks", json=TASK)).status_code == 201
        lost.cancel()
        for task in api.parts.submitter._loose._settling:
            task.cancel()


async def _settling(api: Api) -> bool:
    return bool(api.parts.submitter._loose._settling)


async def test_a_bug_is_a_500_without_a_trace(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        message = "canary-in-the-error"
        raise RuntimeError(message)

    monkeypatch.setattr("core.search.get", broken)
    async with api.person("ada") as ada:
        answer = await ada.get("/v1/tasks/01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11", headers={"x-request-id": "my-id.1"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["request_id"]) == (500, "internal", "my-id.1")
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert any("canary-in-the-error" in str(record.msg) for record in caplog.records)


async def test_a_schema_that_is_not_there_yet_is_not_ready(
    empty_database_url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from core import migrate

    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    config.reload()
    async with running() as api:

        async def seen(*, expected: bool | None) -> bool:
            return bool((await api.anonymous.get("/readyz")).json()["migrated"] is expected)

        assert await happens(lambda: seen(expected=False))
        assert (await api.anonymous.get("/readyz")).status_code == 503
        assert (await api.anonymous.get("/healthz")).status_code == 200
        await asyncio.to_thread(migrate.upgrade, empty_database_url)
        assert await happens(lambda: seen(expected=True))
        assert (await api.anonymous.get("/readyz")).status_code == 200
        api.parts.drain()
        draining = await api.anonymous.get("/readyz")
        assert (draining.status_code, draining.json()["draining"]) == (503, True)


async def test_waiting_for_a_result_ends_with_the_task_and_holds_no_connection(api: Api) -> None:
    async with api.person("ada") as ada:
        ids = [(await ada.post("/v1/tasks", json=TASK)).json()["id"] for _ in range(30)]
        waiting = [asyncio.create_task(ada.get(f"/v1/tasks/{task}/result", params={"wait": 30})) for task in ids]
        assert await happens(lambda: _waiters(api, 30))
        assert api.parts.reads._pool.get_size() <= 6
        for task in ids:
            assert (await ada.post(f"/v1/tasks/{task}:cancel")).status_code == 200
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "CANCELLED")}
        assert not api.parts.endings._waiting

        more = (await ada.post("/v1/tasks", json=TASK)).json()["id"]
        short = await ada.get(f"/v1/tasks/{more}/result", params={"wait": 0.1})
        assert (short.status_code, short.json()) == (202, {"id": more, "status": "QUEUED"})
        long = asyncio.create_task(ada.get(f"/v1/tasks/{more}/result", params={"wait": 60}))
        assert await happens(lambda: _waiters(api, 1))
        api.parts.drain()
        assert (await asyncio.wait_for(long, 5)).status_code == 202


async def _waiters(api: Api, number: int) -> bool:
    return len(api.parts.endings._waiting) == number
