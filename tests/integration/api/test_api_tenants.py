"""Two tenants and every path: nobody sees, moves or learns of what is another's. A new route needs an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from services.api.app import create_app

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from tests.integration.api.conftest import Api

TASK = {
    "type": "secret.module:handler",
    "payload": {"canary": "adas-payload"},
    "queue": "adas-queue",
    "title": "adas-title",
}
CANARIES = ("adas-payload", "adas-title", "secret.module")

FOREIGN, OWN, OPEN, ADMIN = "404 for a foreign id", "shows one's own only", "for everybody", "for administrators"
# What a route owes to a tenant who asks for another's.
ROUTES: dict[tuple[str, str], str] = {
    ("POST", "/v1/tasks"): OWN,
    ("POST", "/v1/tasks:batch"): OWN,
    ("GET", "/v1/tasks"): OWN,
    ("GET", "/v1/tasks/{task_id}"): FOREIGN,
    ("GET", "/v1/tasks/{task_id}/result"): FOREIGN,
    ("GET", "/v1/tasks/{task_id}/events"): FOREIGN,
    ("GET", "/v1/tasks/{task_id}/attempts"): FOREIGN,
    ("GET", "/v1/tasks/{task_id}/logs"): FOREIGN,
    ("POST", "/v1/tasks/{task_id}:cancel"): FOREIGN,
    ("POST", "/v1/tasks/{task_id}:retry"): FOREIGN,
    ("GET", "/v1/queues"): OPEN,
    ("POST", "/v1/queues/{name}:pause"): ADMIN,
    ("POST", "/v1/queues/{name}:resume"): ADMIN,
    ("PUT", "/v1/queues/{name}/limits"): ADMIN,
    ("GET", "/v1/workers"): OPEN,
    ("GET", "/v1/api-keys"): OWN,
    ("POST", "/v1/api-keys"): OWN,
    ("DELETE", "/v1/api-keys/{key_id}"): FOREIGN,
    ("POST", "/v1/auth/register"): OPEN,
    ("POST", "/v1/auth/token"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): OPEN,
}
BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/v1/queues/{name}/limits"): {"max_concurrent": 1, "max_per_key": 1},
    ("POST", "/v1/tasks/{task_id}:cancel"): {"mode": "force"},
}


def _operations() -> set[tuple[str, str]]:
    paths = create_app().openapi()["paths"]
    return {(method.upper(), path) for path, operations in paths.items() for method in operations}


def test_every_route_has_an_entry(environment: dict[str, str]) -> None:
    assert _operations() == set(ROUTES)


async def _prepared(api: Api, ada: AsyncClient) -> dict[str, str]:
    task = (await ada.post("/v1/tasks", json=TASK)).json()["id"]
    key = (await ada.post("/v1/api-keys", json={"name": "adas-key"})).json()["id"]
    return {"task_id": task, "key_id": str(key), "name": "adas-queue"}


@pytest.mark.parametrize(("method", "path"), [route for route, rule in ROUTES.items() if rule == FOREIGN])
async def test_a_foreign_id_is_as_good_as_none(
    api: Api, ada: AsyncClient, eve: AsyncClient, method: str, path: str
) -> None:
    ids = await _prepared(api, ada)
    before = (await ada.get("/v1/tasks")).json()
    none = {"task_id": "01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11", "key_id": "999999999"}
    foreign = await eve.request(method, path.format(**ids), json=BODIES.get((method, path)))
    absent = await eve.request(method, path.format(**none), json=BODIES.get((method, path)))
    assert (foreign.status_code, absent.status_code) == (404, 404)
    said, said_of_none = foreign.json(), absent.json()
    for each in (said, said_of_none):
        each.pop("request_id")
    # The id itself, if it is named, is the only difference.
    assert str(said).replace(ids["key_id"], "?") == str(said_of_none).replace(none["key_id"], "?")
    assert (await ada.get("/v1/tasks")).json() == before
    assert all(key["is_active"] for key in (await ada.get("/v1/api-keys")).json()["keys"])


@pytest.mark.parametrize(("method", "path"), [route for route, rule in ROUTES.items() if rule == ADMIN])
async def test_only_an_administrator_touches_queues(  # noqa: PLR0917 - fixtures
    api: Api, ada: AsyncClient, eve: AsyncClient, root: AsyncClient, method: str, path: str
) -> None:
    ids = await _prepared(api, ada)
    body = BODIES.get((method, path))
    for user in (ada, eve):
        refused = await user.request(method, path.format(**ids), json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await api.anonymous.request(method, path.format(**ids), json=body)).status_code == 401
    allowed = await root.request(method, path.format(**ids), json=body)
    assert (allowed.status_code, allowed.json()["name"]) == (200, "adas-queue")
    assert (await root.request(method, path.format(name="none"), json=body)).status_code == 404


async def test_lists_show_ones_own_only(api: Api, ada: AsyncClient, eve: AsyncClient, root: AsyncClient) -> None:
    ids = await _prepared(api, ada)
    cursor = None
    for query in ({}, {"queue": "adas-queue"}, {"type": TASK["type"]}, {"status": "QUEUED"}):
        seen = await eve.get("/v1/tasks", params=query)
        assert seen.json() == {"tasks": [], "next_cursor": None}
        assert [task["id"] for task in (await ada.get("/v1/tasks", params=query)).json()["tasks"]] == [ids["task_id"]]
        assert [task["id"] for task in (await root.get("/v1/tasks", params=query)).json()["tasks"]] == [ids["task_id"]]
        cursor = (await ada.get("/v1/tasks", params={"limit": 1})).json()["next_cursor"]
    assert (await eve.get("/v1/tasks", params={"cursor": cursor})).json()["tasks"] == []
    assert "adas-key" not in (await eve.get("/v1/api-keys")).text


async def test_nothing_of_a_tenant_shows_where_everybody_may_look(api: Api, ada: AsyncClient, eve: AsyncClient) -> None:
    await _prepared(api, ada)
    for method, path in (route for route, rule in ROUTES.items() if rule == OPEN and route[0] == "GET"):
        answer = await eve.request(method, path)
        assert answer.status_code == 200
        assert [canary for canary in CANARIES if canary in answer.text] == []


async def test_without_credentials_only_the_open_paths_answer(api: Api) -> None:
    ids = {"task_id": "01938f2a-6c7e-7c3a-9d0e-2f6b8f1f0a11", "key_id": "1", "name": "default"}
    for method, path in ROUTES:
        answer = await api.anonymous.request(method, path.format(**ids), json=BODIES.get((method, path)))
        if path in {"/healthz", "/readyz"}:
            assert answer.status_code == 200
        elif path.startswith("/v1/auth/"):
            assert answer.status_code == 422
        else:
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_administrator_may_act_on_foreign_tasks(api: Api, ada: AsyncClient, root: AsyncClient) -> None:
    ids = await _prepared(api, ada)
    assert (await root.post(f"/v1/tasks/{ids['task_id']}:cancel")).json()["status"] == "CANCELLED"
    assert (await root.post(f"/v1/tasks/{ids['task_id']}:retry")).json()["status"] == "QUEUED"
    assert (await root.delete(f"/v1/api-keys/{ids['key_id']}")).status_code == 204
    events = (await ada.get(f"/v1/tasks/{ids['task_id']}/events")).json()["events"]
    assert [(event["event_type"], event["message"]) for event in events] == [
        ("CREATED", None), ("CANCELLED", "by root"), ("REDRIVEN", "by root"),
    ]  # fmt: skip
