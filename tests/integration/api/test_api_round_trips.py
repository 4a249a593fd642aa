"""An API that stops at any moment keeps nothing that others wait for: each of its changes is one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core import config
from core.database import Database
from tests.integration.api.conftest import PASSWORD, running
from tests.round_trips import GATE, QUEUES, TASKS, watched

if TYPE_CHECKING:
    import pytest

TASK: dict[str, Any] = {"type": "a:b", "payload": {}, "queue": "default"}
TAKES_ALL = (
    "select from tasks for update",
    "update queues set paused = false",
    "select pg_advisory_xact_lock(29798, 2)",
)


async def test_no_change_of_the_api_spans_a_round_trip(
    environment: dict[str, str], api_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(environment["DATABASE_URL"]) as (proxy, watch):
        monkeypatch.setenv("DATABASE_URL", proxy.url)
        config.reload()
        async with running() as api, api.person("root", admin=True) as root:

            async def done(method: str, path: str, status: int = 200, **said: Any) -> Any:
                watch.step = f"{method} {path.rpartition('/')[2]}"
                answer = await root.request(method, path, **said)
                assert answer.status_code == status, answer.text
                return answer.json() if answer.content else None

            ids = [(await done("POST", "/v1/tasks", 201, json=TASK))["id"] for _ in range(2)]
            await done("POST", "/v1/tasks", 201, json=TASK, headers={"Idempotency-Key": "k"})
            await done("POST", "/v1/tasks:batch", 201, json={"tasks": [TASK] * 3, "atomic": True})
            for mode in ("graceful", "force"):
                await done("POST", f"/v1/tasks/{ids[0]}:cancel", json={"mode": mode})
                await done("POST", f"/v1/tasks/{ids[0]}:retry")
            await done("PUT", "/v1/queues/default/limits", json={"max_concurrent": 2, "max_per_key": 1})
            await done("POST", "/v1/queues/default:pause")
            await done("POST", "/v1/queues/default:resume")
            made = await done("POST", "/v1/api-keys", 201, json={"name": "another"})
            await done("DELETE", f"/v1/api-keys/{made['id']}", 204)
            await done("POST", "/v1/auth/token", json={"username": "root", "password": PASSWORD})
        assert watch.looks > 0, "accounts are changed in transactions"
        assert {step: held for step, held in watch.held.items() if held} == {}
        watch.step = "the watch itself"
        async with Database(proxy.url, name="tf-test") as db, db.begin() as tx:
            for text in TAKES_ALL:
                await tx.execute(text)
        assert watch.held["the watch itself"] == {TASKS, QUEUES, GATE}
