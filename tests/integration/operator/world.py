"""What the tests of the operator share: a cluster that is small but honest, real PostgreSQL, and hands to move both."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from aiohttp import web

from core import kube
from core import queue_manager as queue
from core.database import Database
from core.domain.task import Submission, WorkerFace
from core.leadership import Leadership, PostgresLease, Term
from services.operator.cluster import Cluster
from services.operator.conflicts import Rivals
from services.operator.desk import Desk
from services.operator.events import Events
from services.operator.loop import ScalingLoop
from services.operator.policy import Rules
from tests.integration.operator.api_server import ApiServer
from tests.leading import OwnClock
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from services.operator.mirror import Mirror

Json = dict[str, Any]
NAMESPACE = "team"
FRAGMENT: Json = {
    "metadata": {"labels": {"app.kubernetes.io/instance": "rel"}},
    "spec": {"serviceAccountName": "rel-worker", "containers": [{"name": "worker", "image": "example.org/worker:1"}]},
}
QUICK: Json = {
    "maxReplicas": 8,
    "idleToZeroSeconds": 0,
    "scaleUp": {"maxPods": 10, "maxPercent": 100, "periodSeconds": 1},
    "scaleDown": {"stabilizationSeconds": 0, "maxPods": 10, "periodSeconds": 1},
}


class Walker(OwnClock):
    """A clock that a sleeper moves himself: nothing here waits for real."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


@dataclass
class World:
    """One cluster, one database, one operator that leads, whose ticks a test calls by hand."""

    api: ApiServer
    db: Database
    term: Term
    cluster: Cluster
    clock: Walker = field(default_factory=Walker)
    rules: Rules = field(default_factory=lambda: Rules(account="rel-worker"))
    workers: dict[str, UUID] = field(default_factory=dict)  # by the pod's uid
    namespaces: tuple[str, ...] = (NAMESPACE,)
    unwatched: set[str] = field(default_factory=set)  # namespaces of which no watch tells

    def __post_init__(self) -> None:
        self.loop = self.another()

    def another(self, release: str = "team/rel") -> ScalingLoop:
        """A loop that remembers nothing, as after a restart."""

        labels = {"app.kubernetes.io/instance": release.partition("/")[2]}
        fragment = {**FRAGMENT, "metadata": {"labels": labels}}

        def desk(mirror: Mirror) -> Desk:
            return Desk(
                cluster=self.cluster, term=self.term, mirror=mirror, clock=self.clock, image="", release=release,
                fragment=fragment,
                rivals=Rivals(self.cluster, self.clock, self.namespaces), rules=self.rules,
                events=Events(self.cluster, self.clock),
            )  # fmt: skip

        return ScalingLoop(desk, namespaces=self.namespaces, poll=5.0)

    # ── TaskQueues ──────────────────────────────────────────────────────────────────────────────────────

    def taskqueue(self, name: str = "text", *, namespace: str = NAMESPACE, **spec: Any) -> Json:
        """Make a TaskQueue; `scaling` is laid over short windows."""
        spec["scaling"] = {**QUICK, **spec.get("scaling", {})}
        return self.api.put("taskqueues", {"metadata": {"name": name, "namespace": namespace}, "spec": spec})

    def status(self, name: str = "text") -> Json:
        found: Json = self.api.get("taskqueues", NAMESPACE, name).get("status", {})
        return found

    def condition(self, kind: str, name: str = "text") -> Json | None:
        return next((one for one in self.status(name).get("conditions", []) if one["type"] == kind), None)

    def replicas(self, name: str = "text") -> int:
        count: int = self.api.get("deployments", NAMESPACE, f"taskflow-{name}")["spec"]["replicas"]
        return count

    def deployed(self, name: str = "text") -> bool:
        return ("deployments", NAMESPACE, f"taskflow-{name}") in self.api.objects

    def events(self) -> list[str]:
        return [f"{one['reason']} {one['message']}" for one in self.api.all("events")]

    # ── the operator ────────────────────────────────────────────────────────────────────────────────────

    async def tick(self, times: int = 1, *, seconds: float = 2.0) -> None:
        """Let the cluster's controllers act, let the watches tell, then let the operator look."""
        for _ in range(times):
            self.controllers()
            for plural, kind in (("taskqueues", 0), ("deployments", 1), ("pods", 2)):
                self._watch(plural, kind)
            self.clock.advance(seconds)
            await self.loop.tick()
        self.controllers()

    def _watch(self, plural: str, kind: int) -> None:
        from services.operator.mirror import KINDS, key_of

        known = {key_of(copy) for copy in self.loop.mirror.all(KINDS[kind])}
        known = {key for key in known if key[0] not in self.unwatched}
        for found in self.api.all(plural):
            if found["metadata"]["namespace"] in self.unwatched:
                continue
            self.loop.heard(KINDS[kind], found, gone=False)
            known.discard(key_of(found))
        for key in known:
            self.loop.heard(KINDS[kind], self.loop.mirror.get(KINDS[kind], key) or {}, gone=True)

    # ── what kube-controller-manager and the kubelet do ─────────────────────────────────────────────────

    def controllers(self) -> None:
        for deployment in self.api.all("deployments"):
            self._replica_set(deployment)

    def _replica_set(self, deployment: Json) -> None:
        about, wanted = deployment["metadata"], deployment["spec"]["replicas"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        pods = self.pods(labels["taskflow.dev/queue"])
        for pod in sorted(pods, key=victim)[: max(0, len(pods) - wanted)]:
            self.api.delete("pods", NAMESPACE, pod["metadata"]["name"])
        for _ in range(wanted - len(pods)):
            name = f"{about['name']}-{uuid4().hex[:6]}"
            self.api.put(
                "pods",
                {
                    "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
                    "spec": {},
                    "status": {"phase": "Pending"},
                },
            )
        status = {"replicas": wanted, "updatedReplicas": wanted, "observedGeneration": about["generation"]}
        if deployment.get("status") != status:
            self.api.change("deployments", about["namespace"], about["name"], {"status": status})

    def pods(self, name: str = "text") -> list[Json]:
        return [pod for pod in self.api.all("pods") if pod["metadata"]["labels"]["taskflow.dev/queue"] == name]

    async def start_pods(self, name: str = "text", types: tuple[str, ...] = ("a:b",)) -> list[str]:
        """Every pod that waits begins to run, and its worker registers; their names."""
        started = []
        for pod in self.pods(name):
            if pod["metadata"]["uid"] in self.workers:
                continue
            self.set_pod(pod["metadata"]["name"], ready=True)
            await self._register(pod, name, types)
            started.append(pod["metadata"]["name"])
        return started

    def set_pod(self, name: str, *, ready: bool, **status: Any) -> None:
        said = "True" if ready else "False"
        self.api.change("pods", NAMESPACE, name, {
            "spec": {"nodeName": "node-1"},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": said}, {"type": "ContainersReady", "status": said}],
                "containerStatuses": [
                    {"name": "worker", "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
                ],
                **status,
            },
        })  # fmt: skip

    async def _register(self, pod: Json, name: str, types: tuple[str, ...]) -> None:
        about = pod["metadata"]
        facts = {"pod": about["name"], "pod_uid": about["uid"], "namespace": NAMESPACE, "node": "node-1"}
        template = about["labels"].get("taskflow.dev/template-hash")
        worker = uuid4()
        face = WorkerFace(
            id=worker, secret=SECRET,
            name=about["name"], queues=(name,), sync_types=types, async_types=(), sync_slots=4,
            async_slots=0, facts={**facts, "template": template} if template else facts,
        )  # fmt: skip
        async with self.db.begin() as tx:
            assert await queue.register_worker(tx, face)
        self.workers[about["uid"]] = worker

    # ── PostgreSQL ──────────────────────────────────────────────────────────────────────────────────────

    async def submit(self, count: int, *, name: str = "text", kind: str = "a:b") -> list[UUID]:
        asked = [Submission(id=uuid4(), owner_id=1, type=kind, queue=name) for _ in range(count)]
        async with self.db.begin() as tx:
            await queue.submit(tx, asked)
        return [one.id for one in asked]

    async def rows(self, statement: str, *given: Any) -> Sequence[Any]:
        async with self.db.connection() as tx:
            found: Sequence[Any] = await tx.fetch(statement, *given)
            return found

    async def states(self) -> dict[UUID, str]:
        return {row["id"]: row["state"] for row in await self.rows("select id, state from workers")}


def victim(pod: Json) -> tuple[bool, bool, int, str]:
    """The order in which a ReplicaSet takes pods away."""
    status = pod.get("status", {})
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    cost = int((pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0"))
    return (status.get("phase") == "Running", ready, cost, pod["metadata"]["name"])


@asynccontextmanager
async def served(folder: Path, monkeypatch: Any) -> AsyncIterator[ApiServer]:
    """An API server on a port of its own, and KUBECONFIG that names it."""
    api = ApiServer()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{rest:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    path = folder / "kubeconfig"
    path.write_text(
        f"""{{apiVersion: v1, kind: Config, current-context: it,
        clusters: [{{name: it, cluster: {{server: "http://127.0.0.1:{port}"}}}}],
        users: [{{name: it, user: {{token: nobody}}}}],
        contexts: [{{name: it, context: {{cluster: it, user: it, namespace: {NAMESPACE}}}}}]}}"""
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    # The client library reads the variable once, when it is imported.
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    try:
        yield api
    finally:
        await runner.cleanup()


@asynccontextmanager
async def world(url: str, folder: Path, monkeypatch: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(served(folder, monkeypatch))
        client = await stack.enter_async_context(kube.client())
        db = await stack.enter_async_context(Database(url, name="test", size=4, hot=False))
        holder = uuid4()
        election = PostgresLease(db, holder, name=queue.OPERATOR)
        leadership = Leadership(url, holder, db=db, election=election, name=queue.OPERATOR)
        term, _ = await stack.enter_async_context(leadership.term())
        yield World(api=api, db=db, term=term, cluster=Cluster(client))
