"""The product in a namespace of its own: installed by helm, asked by SQL and REST, and taken away again."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2.extensions

from tests.cluster import manifests
from tests.cluster.kube import CommandFailed, Kube, command, is_ready, restarts
from tests.cluster.place import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

CHART = ROOT / "deploy/helm/taskflow"
VALUES = CHART / "ci/cluster-values.yaml"
NAME = "taskflow"
# What the release that the tests share is installed with.
PAIRS = "api.replicas=2,scheduler.replicas=2,operator.replicas=2,defaultQueue.spec.scaling.minReplicas=0"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "QUARANTINED")


class Release:
    """An installed chart, called `taskflow`, in a namespace under Pod Security `restricted`."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.kube = Kube(namespace)
        self.tag = ""

    # ── helm ────────────────────────────────────────────────────────────────────────────────────────────

    def helm(self, *words: str, within: float = 300.0) -> str:
        """Run `helm WORDS` in the namespace."""
        return command("helm", "-n", self.namespace, *words, within=within)

    def install(self, *words: str, values: Path | None = VALUES) -> None:
        """Install the chart and wait until everything is up."""
        command("kubectl", "create", "namespace", self.namespace)
        label = "pod-security.kubernetes.io/enforce=restricted"
        command("kubectl", "label", "namespace", self.namespace, label, "taskflow-tests=yes")
        chosen = ["-f", str(values)] if values else []
        # The definition of TaskQueue stays when a release goes: the next one, in another namespace, takes it over.
        crd = command("kubectl", "get", "crd", "taskqueues.taskflow.dev", "--ignore-not-found")
        taken = ["--take-ownership"] if crd else []
        self.helm("install", NAME, str(CHART), *chosen, *words, *taken, "--wait", "--timeout", "6m", within=400)
        self.tag = json.loads(self.helm("list", "-o", "json"))[0]["app_version"]

    def prepare(self) -> None:
        """Put the tests' scripts and the pod that runs them into the namespace."""
        self.kube.apply(manifests.scripts(), self.client_pod("client", ["-c", "import signal; signal.pause()"]))
        self.kube("wait", "--for=condition=Ready", "pod/client", "--timeout=60s", within=70)

    def client_pod(self, name: str, script: list[str], **env: str) -> dict[str, Any]:
        """The manifest of a pod that may speak to the API."""
        return manifests.client(name, NAME, self.tag, script, **env)

    def uninstall(self) -> None:
        """Take the release away, then the namespace. Raises TimeoutError when something is stuck."""
        with suppress(CommandFailed):
            self.helm("uninstall", NAME, "--wait", "--timeout", "2m", within=150)
        with suppress(CommandFailed):  # nor need there be such a kind
            for thing in self.kube.all("taskqueues.taskflow.dev"):
                self.kube.patch(f"tq/{thing['metadata']['name']}", {"metadata": {"finalizers": None}})
        gone = ["delete", "namespace", self.namespace, "--ignore-not-found", "--wait", "--timeout=150s"]
        command("kubectl", *gone, within=160)

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What a statement returns, as the database's superuser; `%s` stands for the values."""
        if values:
            query %= tuple(_literal(value) for value in values)
        wrapped = f"select coalesce(json_agg(found), '[]') from ({query.strip().rstrip(';')}) found;"
        return json.loads(self._psql(wrapped))

    def execute(self, statement: str) -> None:
        """Run statements that return nothing."""
        self._psql(statement)

    def one(self, query: str, *values: Any) -> Any:
        """The only value of the only row."""
        return next(iter(self.rows(query, *values)[0].values()))

    def _psql(self, text: str) -> str:
        words = ("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "taskflow")
        return self.kube.inside(f"{NAME}-postgres-0", *words, given=text)

    def leader(self, role: str) -> str:
        """The name of the pod that holds the Lease of `scheduler` or `operator`, once there is one."""

        def holder() -> str:
            lease = self.kube.one(f"lease/{NAME}-{role}")
            held = lease.get("spec", {}).get("holderIdentity") or ""
            return next((name for name in self.kube.names(role) if name in held), "")

        return self.kube.until(holder, 40)

    def settled(self, within: float = 120.0) -> None:
        """Wait until every pod of the chart's own is ready, and as many as wanted."""

        def all_ready() -> bool:
            sets = self.kube.all("deployments,statefulsets", "app.kubernetes.io/managed-by=Helm")
            wanted = sum(one["spec"]["replicas"] for one in sets)
            pods = [pod for pod in self.kube.pods() if "job-name" not in pod["metadata"]["labels"]]
            own = [pod for pod in pods if pod["metadata"]["labels"].get("app.kubernetes.io/component") != "worker"]
            return len(own) == wanted and all(is_ready(pod) for pod in own)

        self.kube.until(all_ready, within, every=1)

    def restarted(self) -> dict[str, int]:
        """Containers that were restarted, by pod."""
        return restarts(self.kube.pods())

    # ── TaskQueues ──────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def queue(self, name: str, **said: Any) -> Iterator[str]:
        """A TaskQueue for a test; afterwards it goes with its workers, waiting tasks are cancelled."""
        self.kube.apply(manifests.taskqueue(name, **said))
        self.kube.until(lambda: self.kube.one(f"deployment/{NAME}-{name}"), 30)
        yield name
        # Only after success: what failed is to be looked at as it is, and goes with the namespace.
        self.kube.patch(f"tq/{name}", {"spec": {"deletionPolicy": "Purge"}})
        self.kube("delete", "tq", name, "--wait", "--timeout=90s", within=100)

    def scaling(self, name: str, **change: Any) -> None:
        """Change spec.scaling of a TaskQueue."""
        self.kube.patch(f"tq/{name}", {"spec": {"scaling": change}})

    def replicas(self, name: str) -> int:
        """How many workers of a TaskQueue are ordered."""
        return int(self.kube.one(f"deployment/{NAME}-{name}")["spec"]["replicas"])

    def workers(self, name: str, number: int, within: float = 90.0) -> list[str]:
        """Wait until exactly so many workers of a TaskQueue are there and ready; their pods' names."""

        def there() -> list[str] | None:
            pods = self.kube.pods("worker", name)
            names = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
            return [*names, "."] if len(names) == len(pods) == number == self.replicas(name) else None

        return self.kube.until(there, within, every=0.5)[:-1]

    # ── tasks ───────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, queue: str, payloads: Iterable[dict[str, Any]], task: str = "work", **said: Any) -> list[str]:
        """Submit a task (of cluster_tasks.py when it names no module) for each payload, over REST; their ids."""
        name = task if ":" in task else f"cluster_tasks:{task}"
        tasks = [{"type": name, "queue": queue, "payload": one, **said} for one in payloads]
        words = ("python", manifests.script("submit.py"), secrets.token_hex(8))
        return json.loads(self.kube.inside("client", *words, given=json.dumps(tasks), within=120))

    def get(self, *paths: str) -> list[tuple[int, Any]]:
        """What the API answers to the administrator: statuses and bodies."""
        return json.loads(self.kube.inside("client", "python", manifests.script("get.py"), *paths))

    def statuses(self, ids: Iterable[str]) -> dict[str, str]:
        """How tasks stand."""
        found = self.rows("select id::text, status::text from tasks where id = any(%s::uuid[])", list(ids))
        return {row["id"]: row["status"] for row in found}

    def ended(self, ids: Sequence[str], within: float = 90.0) -> dict[str, str]:
        """Wait until all of them have ended; how."""

        def all_ended() -> dict[str, str]:
            found = self.statuses(ids)
            return found if all(found.get(task) in ENDED for task in ids) else {}

        return self.kube.until(all_ended, within, every=1) if ids else {}

    def running(self, ids: Sequence[str], within: float = 60.0) -> None:
        """Wait until all of them are IN_PROGRESS."""
        self.kube.until(lambda: set(self.statuses(ids).values()) == {"IN_PROGRESS"}, within, every=0.5)

    def attempts(self, task: str) -> list[dict[str, Any]]:
        """The events of a task that say how its attempts ended."""
        return self.rows(
            "select event_type::text as event, attempt, cause, error, message from task_events"
            " where task_id = %s::uuid and event_type::text <> 'STARTED' and attempt is not null"
            " order by created_at, id",
            task,
        )

    # ── when something went wrong ───────────────────────────────────────────────────────────────────────

    def collect(self, folder: Path) -> None:
        """Write down everything that helps to understand a failure."""
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {
            "pods.txt": ("get", "pods,jobs,deployments,statefulsets,leases", "-o", "wide"),
            "tq.txt": ("get", "tq"),
            "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
            "describe.txt": ("describe", "pods,jobs,deployments"),
            "tq.yaml": ("get", "tq", "-o", "yaml"),
            "leases.yaml": ("get", "leases", "-o", "yaml"),
        }
        for pod in self.kube("get", "pods", "-o", "name").split():
            name = pod.removeprefix("pod/")
            wanted[f"{name}.log"] = ("logs", name, "--all-containers", "--prefix", "--tail=5000")
            wanted[f"{name}.previous.log"] = ("logs", name, "--all-containers", "--prefix", "--previous")
        for name, words in wanted.items():
            try:
                said = self.kube(*words)
            except CommandFailed as failed:
                said = "" if name.endswith(".previous.log") else str(failed)
            if said:
                (folder / name).write_text(said, encoding="utf-8")


def _literal(value: Any) -> str:
    return psycopg2.extensions.adapt(value).getquoted().decode()


@contextmanager
def namespace() -> Iterator[Release]:
    """A name for a release, whose namespace is gone afterwards whatever happened in it."""
    release = Release(f"tf-test-{secrets.token_hex(3)}")
    try:
        yield release
    finally:
        if os.environ.get("TASKFLOW_CLUSTER_KEEP", "") in {"", "0"}:
            release.uninstall()


def sweep() -> None:
    """Take away what a killed run has left behind."""
    left = command("kubectl", "get", "namespaces", "-l", "taskflow-tests=yes", "-o", "name").split()
    for name in left:
        Release(name.removeprefix("namespace/")).uninstall()
