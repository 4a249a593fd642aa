"""A server that speaks as much of the Kubernetes API as a Lease needs, over real HTTP, with its rules kept.

A write with a stale resourceVersion or a former uid is a conflict, a second creation too; what is not there is not
found. `mood` makes it fail, hang or refuse; `calls` are the requests that reached it.
"""

from __future__ import annotations

import asyncio
import copy
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


class KubeApi:
    """The server's store, and what a test does to it behind its clients' backs."""

    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.mood: Literal["well", "failing", "hanging", "refusing"] = "well"
        self.calls: list[tuple[str, str]] = []
        self.url = ""
        self._version = 100

    def put(self, name: str, spec: dict[str, Any] | None = None, **labels: str) -> None:
        """Write a Lease as an administrator does, whoever held it."""
        old = self.leases.get(name, {"metadata": {"name": name, "labels": {}}, "spec": {}})
        metadata = {**old["metadata"], "labels": {**old["metadata"].get("labels", {}), **labels}}
        self._store(name, {**old, "metadata": metadata, "spec": old["spec"] if spec is None else spec})

    def hand_to(self, name: str, holder: str) -> None:
        """Write another holder into a Lease, for a year."""
        self.put(name, {**self.leases[name]["spec"], "holderIdentity": holder, "leaseDurationSeconds": 31_536_000})

    def delete(self, name: str) -> None:
        self.leases.pop(name, None)

    def holder(self, name: str) -> str | None:
        found = self.leases.get(name)
        return found and found["spec"].get("holderIdentity")

    def _store(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        stored = copy.deepcopy(body)
        uid = self.leases[name]["metadata"]["uid"] if name in self.leases else str(uuid4())
        stored["metadata"] = {**stored["metadata"], "name": name, "uid": uid, "resourceVersion": str(self._version)}
        self.leases[name] = stored
        return stored

    @web.middleware
    async def moody(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.calls.append((request.method, request.path))
        match self.mood:
            case "failing":
                return _status(500, "etcdserver: leader changed")
            case "refusing":
                return _status(403, "leases is forbidden")
            case "hanging":
                await asyncio.Event().wait()
            case "well":
                pass
        answer: web.StreamResponse = await handler(request)
        return answer

    async def get(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(self.leases[name]) if name in self.leases else _status(404, f"{name} not found")

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if name in self.leases:
            return _status(409, f"{name} already exists")
        return web.json_response(self._store(name, body), status=201)

    async def replace(self, request: web.Request) -> web.Response:
        body, name = await request.json(), request.match_info["name"]
        if name not in self.leases:
            # A Lease may be made by an update, but the uid in the body is a precondition.
            if "uid" in body["metadata"]:
                return _status(409, "Precondition failed: UID in precondition, UID in object meta: ")
            return web.json_response(self._store(name, body), status=201)
        there = self.leases[name]["metadata"]
        if body["metadata"].get("uid", there["uid"]) != there["uid"]:
            return _status(409, "Precondition failed: UID in precondition, UID in object meta")
        if body["metadata"].get("resourceVersion", there["resourceVersion"]) != there["resourceVersion"]:
            return _status(409, "the object has been modified")
        return web.json_response(self._store(name, body))


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return web.Response(status=code, text=json.dumps(body), content_type="application/json")


@asynccontextmanager
async def kube_api() -> AsyncIterator[KubeApi]:
    """Run the server on a port of its own."""
    api = KubeApi()
    app = web.Application(middlewares=[api.moody])
    app.router.add_post(_LEASES, api.create)
    app.router.add_get(_LEASES + "/{name}", api.get)
    app.router.add_put(_LEASES + "/{name}", api.replace)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        api.url = f"http://{host}:{port}"
        yield api
    finally:
        await runner.cleanup()


@asynccontextmanager
async def api_client(server: KubeApi) -> AsyncIterator[Any]:
    """The real client library, at this server."""
    from kubernetes.aio.client import ApiClient, Configuration

    configuration = Configuration(host=server.url)
    async with ApiClient(configuration) as api:
        yield api
