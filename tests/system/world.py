"""A whole TaskFlow of real processes, for one test module: a database of its own, two Redis, and a fleet."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extras
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from core import local
from core.urls import for_psycopg2
from services.dev import fleet as fleets
from services.dev.fleet import Fleet, Member
from taskflow_queue import Client, verbs
from taskflow_queue.options import Options
from tests.conftest import SECRET_KEY
from tests.signals import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from core.embedded import Servers

HEARTBEAT = 0.5
LEASE = 3 * HEARTBEAT
MODULES = ("tests.system.tasks", "tests.handlers")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "QUARANTINED")


class World:
    """What a system test needs to know and to do."""

    def __init__(self, folder: Path, fleet: Fleet, servers: Servers, database_url: str) -> None:
        self.folder = folder
        self.fleet = fleet
        self.servers = servers
        self.database_url = database_url
        self._connection: Any = None
        self.owner, self.key = self._account()
        self.client: Client = None  # type: ignore[assignment]  # as soon as there is an API

    # ── processes ───────────────────────────────────────────────────────────────────────────────────────

    def api(self, **env: str) -> Member:
        """Start an API, wait for it, and let `client` speak to it."""
        member = self.fleet.api(**env)
        self.fleet.ready(member)
        self.client = Client(fleets.url(member), self.key, patience=60)
        return member

    def schedulers(self, number: int = 1, **env: str) -> list[Member]:
        """Start schedulers and wait until one of them leads."""
        members = [self.fleet.scheduler(**env) for _ in range(number)]
        self.fleet.ready(*members)
        until(self.fleet.leader, 20)
        return members

    def workers(self, number: int = 1, *, modules: Sequence[str] = MODULES, **env: str) -> list[Member]:
        """Start workers and wait for them. One child each unless told otherwise: two cores are not many."""
        env = {"TASKFLOW_WORKER_CHILDREN": "1", **env}
        members = [self.fleet.worker(*modules, **env) for _ in range(number)]
        self.fleet.ready(*members)
        return members

    def stop(self, *members: Member) -> None:
        self.fleet.stop(*members)

    # ── the database ────────────────────────────────────────────────────────────────────────────────────

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What a statement returns, on a connection that commits each of them."""
        for last in (False, True):
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg2.connect(self.database_url)
                    self._connection.autocommit = True
                with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                    cursor.execute(query, values or None)
                    return [dict(row) for row in cursor.fetchall()] if cursor.description else []
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self.disconnect()
                if last:
                    raise
        raise AssertionError

    def one(self, query: str, *values: Any) -> Any:
        """The only value of the only row."""
        return next(iter(self.rows(query, *values)[0].values()))

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ── tasks ───────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, name: str, count: int = 1, /, **payload: Any) -> list[str]:
        """Submit `count` of a task of tests/system/tasks.py, or of any module with its name before a colon."""
        return self.submit_each(name, [payload] * count)

    def submit_each(self, name: str, payloads: Iterable[dict[str, Any]], **said: Any) -> list[str]:
        """Submit a task for each payload."""
        queue = said.pop("queue", None) or self._queue(name)
        name = name if ":" in name else f"tests.system.tasks:{name}"
        return [self.client.submit(name, payload, queue=queue, **said).id for payload in payloads]

    def submit_together(self, name: str, count: int, /, **payload: Any) -> list[str]:
        """Submit `count` of a task of tests/system/tasks.py with one call of the client: they are there at once."""
        said = Options(queue=self._queue(name))
        bodies = verbs.bodies_of(f"tests.system.tasks:{name}", [json.dumps(payload).encode()] * count, said)
        return self.submit_bodies(bodies)

    def submit_bodies(self, bodies: Sequence[bytes]) -> list[str]:
        """Submit tasks, which `verbs.bodies_of` has made, as `map` does."""
        parts = list(verbs.batches(bodies))
        found = self.client.run_all(verbs.submit_many(parts))
        return verbs.all_submitted(parts, found, str)

    def history(self) -> Path:
        """A new file for handlers to write to."""
        return self.folder / f"history-{secrets.token_hex(4)}"

    def statuses(self, ids: Iterable[str]) -> dict[str, str]:
        found = self.rows("select id::text, status::text from tasks where id = any(%s::uuid[])", list(ids))
        return {row["id"]: row["status"] for row in found}

    def ended(self, ids: Iterable[str], within: float = 30.0) -> dict[str, str]:
        """Wait until all of them have ended; how."""
        ids = list(ids)

        def all_ended() -> dict[str, str]:
            found = self.statuses(ids)
            return found if all(found.get(task) in ENDED for task in ids) else {}

        try:
            return until(all_ended, within, every=0.05) if ids else {}
        except TimeoutError:
            left = {task: status for task, status in self.statuses(ids).items() if status not in ENDED}
            message = f"{len(left)} of {len(ids)} have not ended within {within} s: {list(left.items())[:5]}"
            raise TimeoutError(message) from None

    def running(self, ids: Iterable[str], within: float = 20.0) -> None:
        """Wait until all of them are IN_PROGRESS."""
        ids = list(ids)
        until(lambda: set(self.statuses(ids).values()) == {"IN_PROGRESS"}, within, every=0.02)

    def holders(self, ids: Iterable[str]) -> dict[str, int]:
        """The pid of each task's worker."""
        found = self.rows(
            "select tasks.id::text, workers.pid from tasks join workers on workers.id = tasks.worker_id"
            " where tasks.id = any(%s::uuid[])",
            list(ids),
        )
        return {row["id"]: row["pid"] for row in found}

    def deaths(self) -> int:
        """How many workers were declared dead or have retired."""
        return int(self.one("select count(*) from workers where state = 'dead'"))

    def _queue(self, name: str) -> str:
        if name.startswith("tests.handlers"):
            return "default"
        return "async" if name == "awork" else "sync"

    def _account(self) -> tuple[int, str]:
        engine = create_engine(for_psycopg2(self.database_url))
        try:
            with Session(engine) as session:
                user = local.owner(session, f"tester-{secrets.token_hex(4)}")
                owner, key = user.id, local.key_of(session, user, None)
                session.commit()
                return owner, key
        finally:
            engine.dispose()


@contextmanager
def world(folder: Path, servers: Servers, database_url: str, **env: str) -> Iterator[World]:
    """A world without any process yet; whatever is started in it ends with it."""
    settings = {
        **servers.env(),
        "DATABASE_URL": database_url,
        "SECRET_KEY": SECRET_KEY,
        "TASKFLOW_ENV": "development",
        "HEARTBEAT_INTERVAL_SECONDS": str(HEARTBEAT),
        "TASKFLOW_WORKER_DRAIN_SECONDS": "1",
        **env,
    }
    with Fleet(folder / f"fleet-{secrets.token_hex(4)}", settings) as fleet:
        made = World(folder, fleet, servers, database_url)
        try:
            yield made
        finally:
            made.disconnect()
            if made.client is not None:
                made.client.close()
