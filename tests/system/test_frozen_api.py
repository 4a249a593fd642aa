"""An API is stopped (SIGSTOP) at any moment, inside any statement: every other task goes on, and the caps hold."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import psutil
import pytest

from core.clock import pause
from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK
from services.dev import fleet as fleets
from tests.round_trips import HELD
from tests.signals import until
from tests.system.clients import Face
from tests.system.conftest import FULL
from tests.system.history import verify
from tests.system.leaders import capped
from tests.system.proxy import Proxy, Toxic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from services.dev.fleet import Member
    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FULL, reason="minutes of load; at full size only, test_api_round_trips.py is for every run"),
]

STOPS = 20
GOES_ON = 10.0  # seconds in which what another API was given ends, while the first one is stopped
LIMITED, MOST = "limited", 3  # a queue whose cap changes between MOST and one less
KEY = "one at a time"
PACE = 0.03
AWORK = "tests.system.tasks:awork"
# Each statement by which the API changes something: its client is stopped when it was carried out, before it knows.
STATEMENTS = {
    "submit": "-- Insert tasks and their CREATED",
    "cancel": "-- Move waiting or ended tasks",
    "limits": "-- Set a queue's caps",
    "pause": "update queues set paused",
}
OPEN = "select id::text from tasks where status::text in ('PENDING', 'QUEUED') and scheduled_at > '2098-01-01'"
SPANS = """
select event.created_at as at, case when event.event_type::text = 'STARTED' then 1 else -1 end as step
from tasks join task_events as event on event.task_id = tasks.id and event.claim is not null
where tasks.queue = %s and event.event_type::text not in ('FENCED', 'CANCEL_REQUESTED')
order by event.created_at, step
"""


@dataclass
class Load:
    """Threads that submit, cancel, and set limits at one API; they bear with it when it does not answer."""

    world: World
    address: str
    history: Path
    ids: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for work in (self._submit, self._submit, self._cancel, self._cancel, self._limits, self._pauses):
            self._threads.append(threading.Thread(target=self._live, args=(work,), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def task(self, **more: Any) -> dict[str, Any]:
        return {"type": AWORK, "queue": "async", "payload": {"history": str(self.history), "seconds": 0.02}, **more}

    def _live(self, work: Any) -> None:
        face = Face(self.address, self.world.key)
        turn = 0
        while not self._over.is_set():
            turn += 1
            try:
                work(face, turn)
            except (OSError, http.client.HTTPException):
                self.met["cut"] += 1
            except Exception as error:  # noqa: BLE001 - a thread's edge: it is told in the test
                self.problems.append(repr(error))
                break
            self._over.wait(PACE)
        face.close()

    def _call(self, face: Face, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, _, said = face.call(method, path, body, **more)
        self.met[f"{method} {status}"] += 1
        if status not in {200, 201, 202, 503, 429}:
            self.problems.append(f"{method} {path}: {status} {said}")
        return said if status in {200, 201, 202} else None

    def _submit(self, face: Face, turn: int) -> None:
        more: dict[str, Any] = [{}, {"concurrency_key": KEY}, {"queue": LIMITED}][turn % 3]
        key = f"{threading.get_ident()}-{turn}"
        made = self._call(face, "POST", "/v1/tasks", self.task(**more), **({"key": key} if turn % 2 else {}))
        if made:
            self.ids.append(made["id"])

    def _cancel(self, face: Face, turn: int) -> None:
        more: dict[str, Any] = {"scheduled_at": "2099-01-01T00:00:00Z"} if turn % 2 else {"queue": "nowhere"}
        made = self._call(face, "POST", "/v1/tasks", self.task(**more))
        if made and self._call(face, "POST", f"/v1/tasks/{made['id']}:cancel"):
            self.cancelled.append(made["id"])

    def _limits(self, face: Face, turn: int) -> None:
        body = {"max_concurrent": MOST - turn % 2, "max_per_key": 1}
        self._call(face, "PUT", f"/v1/queues/{LIMITED}/limits", body)

    def _pauses(self, face: Face, turn: int) -> None:
        self._call(face, "POST", f"/v1/queues/nowhere:{'pause' if turn % 2 else 'resume'}")


@dataclass
class Scene:
    """The API that is stopped, behind a proxy, and a client of the other one."""

    world: World
    proxy: Proxy
    victim: Member
    other: Face
    history: Path
    ids: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)

    def go_on(self, names: Sequence[str] = ("async", LIMITED)) -> None:
        """While it is stopped: free, keyed and capped tasks end, and others change what it was changing."""
        rows = self.world.rows(HELD, ADVISORY_CLASS, GATE_LOCK)
        self.held += [row for row in rows if row["application_name"].startswith("tf-api") and row["case"] is not None]
        began = time.monotonic()
        payloads = [{"history": str(self.history), "seconds": 0.02}] * 3
        made = [task for name in names for task in self.world.submit_each("awork", payloads, queue=name)]
        made += self.world.submit_each("awork", payloads, concurrency_key=KEY)
        made += self.world.submit_each("awork", payloads[:1], concurrency_key=f"of its own {began}")
        for method, path, body in self._changes():
            status, _, said = self.other.call(method, path, body)
            assert status == 200, said
        self.world.ended(made, GOES_ON)
        self.took.append(time.monotonic() - began)
        self.ids += made

    def _changes(self) -> Iterator[tuple[str, str, Any]]:
        """What the other API is told: of the very queues, and a task, that the stopped one is at."""
        yield "PUT", f"/v1/queues/{LIMITED}/limits", {"max_concurrent": MOST, "max_per_key": 1}
        yield "POST", "/v1/queues/nowhere:resume", None
        for row in self.world.rows(OPEN):
            yield "POST", f"/v1/tasks/{row['id']}:cancel", None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        try:
            self.victim.pause()
            yield
        finally:
            self.victim.resume()


@pytest.fixture
def scene(module_world: World, history: Path) -> Iterator[Scene]:
    world = module_world
    with Proxy(world.database_url) as proxy:
        victim = world.fleet.api(DATABASE_URL=proxy.url)
        world.fleet.ready(victim)
        other = fleets.url(world.api())
        world.schedulers()
        world.workers(2, TASKFLOW_WORKER_QUEUES=f"async,{LIMITED}")
        for name in (LIMITED, "nowhere"):
            world.rows("insert into queues (name, max_concurrent) values (%s, %s) on conflict do nothing", name, MOST)
        world.rows("update queues set max_concurrent = 0 where name = 'nowhere'")
        face = Face(other, world.key)
        yield Scene(world, proxy, victim, face, history)
        face.close()
        proxy.disarm()
        world.fleet.stop(*world.fleet.living())


def most_at_once(world: World, name: str) -> int:
    """The most tasks of a queue that ran at one moment, by the events."""
    running = most = 0
    for row in world.rows(SPANS, name):
        running += row["step"]
        most = max(most, running)
    return most


def test_an_api_that_is_stopped_at_any_moment_stops_no_other_task(scene: Scene) -> None:
    world, rand = scene.world, random.Random()
    with Load(world, fleets.url(scene.victim), scene.history) as load:
        until(lambda: load.problems or (len(load.ids) > 20 and len(load.cancelled) > 10), 30)
        for _ in range(STOPS):
            pause(rand.uniform(0.05, 0.6))
            with scene.stopped():
                scene.go_on()
        for name, statement in STATEMENTS.items():
            armed = scene.proxy.arm(statement, Toxic.CALL_AFTER, call=scene.victim.pause, at_commit=False)
            until(lambda armed=armed: armed.fired and stopped(scene.victim), 20)  # type: ignore[misc]
            with scene.stopped():
                scene.go_on()
            load.met[f"stopped in {name}"] += 1
        for name, statement in STATEMENTS.items():  # as when its host vanishes: the answer never comes
            armed = scene.proxy.arm(statement, Toxic.HANG, at_commit=False)
            until(lambda armed=armed: armed.fired, 20)  # type: ignore[misc]
            scene.go_on()
            scene.proxy.cut()
            load.met[f"silent in {name}"] += 1
        before = len(load.ids)
        until(lambda: load.problems or len(load.ids) > before, 30)
    assert load.problems == []
    assert scene.held == []
    every = [*scene.ids, *load.ids]
    world.ended([*every, *load.cancelled], 60)
    verify(world, every, scene.history).clean()
    assert set(world.statuses(load.cancelled).values()) == {"CANCELLED"}
    executions, most = capped(world, every, KEY), most_at_once(world, LIMITED)
    assert most <= MOST
    print(
        f"{len(scene.took)} stops: what others submitted ended within {max(scene.took):.2f} s (median"
        f" {sorted(scene.took)[len(scene.took) // 2]:.2f} s); {executions} of the key one by one, at most {most} of"
        f" {MOST} at once; {len(load.ids)} submits, {len(load.cancelled)} cancels; {dict(load.met)}"
    )


def stopped(member: Member) -> bool:
    """Whether SIGSTOP has reached it."""
    return psutil.Process(member.pid).status() == psutil.STATUS_STOPPED
