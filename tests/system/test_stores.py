"""The stores fail: whatever happens to them and to the API, what was acknowledged is there and runs, once.

Rows 1, 13, 14, 17 and 18 of reliability.md §1. One fleet on stores of its own, which the tests crash.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import redis

from core import embedded, migrate
from core.domain.ordering import PriorityType, digest, list_key
from services.dev import fleet as fleets
from tests.conftest import SECRET_KEY, flush
from tests.signals import until
from tests.system.clients import Clients, Face
from tests.system.conftest import FULL
from tests.system.history import Verdict, verify
from tests.system.world import LEASE, World, world

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(3600 if FULL else 180),
]

OF_HISTORY = "from tasks where payload::jsonb ->> 'history' = %s"
WAITED = f"""
select max(extract(epoch from event.created_at - tasks.created_at))::float8
from tasks join task_events as event on event.task_id = tasks.id and event.event_type::text = 'STARTED'
where tasks.id in (select id {OF_HISTORY}) and tasks.id = any(%s::uuid[])
"""


@pytest.fixture(scope="module")
def stores(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An API, a scheduler and two workers on a PostgreSQL and two Redis that nobody else uses."""
    place = run_folder / f"own-{secrets.token_hex(4)}"
    with embedded.running(place, postgres=True, redis=True, delete=True) as own:
        migrate.upgrade(own.database_url)
        with world(tmp_path_factory.mktemp("stores"), own, own.database_url) as made:
            made.api()
            made.fleet.ready(made.fleet.scheduler())
            made.workers(2)
            yield made


def body(name: str, history: Path, priority: str = "NORMAL", **payload: Any) -> dict[str, Any]:
    """A submit of a task of tests/system/tasks.py."""
    queue = "async" if name == "awork" else "sync"
    payload = {"history": str(history), **payload}
    return {"type": f"tests.system.tasks:{name}", "queue": queue, "priority": priority, "payload": payload}


def once_each(stores: World, ids: Iterable[str], history: Path, within: float = 60.0) -> Verdict:
    """Wait for the ends; nothing lost or doubled, and no execution beyond the first."""
    ids = list(ids)
    stores.ended(ids, within)
    verdict = verify(stores, ids, history).clean()
    assert stores.one(f"select count(*) {OF_HISTORY}", str(history)) == len(set(ids)) == len(ids)
    assert (verdict.executions, verdict.events["RESCUED"], stores.deaths()) == (len(ids), 0, 0)
    return verdict


def completed(stores: World, history: Path) -> int:
    return int(stores.one(f"select count(*) {OF_HISTORY} and status::text = 'COMPLETED'", str(history)))


@contextmanager
def clients_of(stores: World) -> Iterator[list[redis.Redis]]:
    """Both Redis: high, low."""
    both = [stores.servers.redis_high, stores.servers.redis_low]
    assert all(both)
    with redis.Redis(*both[0]) as high, redis.Redis(*both[1]) as low:  # type: ignore[misc]
        yield [high, low]


def references(stores: World) -> int:
    """How many wait in the lists just now."""
    with clients_of(stores) as servers:
        return sum(server.llen(key) for server in servers for key in server.scan_iter("tf:r:*"))


# ── the API ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_row_01_an_api_killed_at_random_loses_nothing_and_doubles_nothing(stores: World) -> None:
    seed, kills, history = random.SystemRandom().randrange(10_000), 0, stores.history()
    rand = random.Random(seed)
    with Clients(stores, 200 if FULL else 20, body("awork", history), pace=0.1) as clients:
        while kills < (20 if FULL else 3) or (not clients.met["replay"] and kills < 40):
            clients.more(rand.randrange(10, 60), within=40)
            api = stores.fleet.living("api")[0]
            if clients.met["replay"]:
                stores.fleet.kill(api)
            else:
                _kill_amid_a_submit(stores, api)
            kills += 1
            stores.fleet.ready(stores.fleet.replace(api))
        clients.more(20)
    clients.clean()
    once_each(stores, clients.ids, history)
    assert clients.met["cut"] > 0
    assert clients.met["replay"] > 0
    keyed = "select count(*) from idempotency_keys where key = any(%s)"
    assert stores.one(keyed, list(clients.answered)) == len(clients.answered)
    print(f"row 1: seed {seed}, {kills} kills, {len(clients.ids)} keys, {dict(clients.met)}")


def _kill_amid_a_submit(stores: World, api: fleets.Member) -> None:
    """Kill it while PostgreSQL has its INSERT and has not answered: that is committed, and nobody is told."""
    waiting = "select 1 from pg_stat_activity where application_name = 'tf-api-keyed' and wait_event_type = 'Lock'"
    stores.rows("begin")
    stores.rows("lock table idempotency_keys in share mode")
    try:
        until(lambda: stores.rows(waiting), 5, every=0.002)
        stores.fleet.kill(api)
    finally:
        stores.rows("commit")


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_row_13_emptied_redis_under_load_costs_no_task_and_no_execution(stores: World) -> None:
    history, gone, times = stores.history(), 0, 0
    # More than four children hold at once, if all they know is short tasks: so there are references to lose.
    behind = stores.submit_together("work", 1500, history=str(history), seconds=0.005)
    with Clients(stores, 6, body("awork", history)) as clients:
        while times < (20 if FULL else 3) or (not gone and times < 20):
            clients.more(40)
            gone += references(stores)
            flush(stores.servers)
            times += 1
        clients.more(40)
    clients.clean()
    once_each(stores, [*behind, *clients.ids], history)
    waited = stores.one(WAITED, str(history), clients.ids)
    assert gone > 0
    assert waited <= 10
    assert set(clients.met) == {"201"}
    print(f"row 13: {gone} references lost, {len(clients.ids)} submitted, the longest wait was {waited:.2f} s")


@pytest.mark.parametrize("which", ["high", "low"])
def test_row_14_without_one_redis_everything_goes_on(stores: World, which: embedded.Which) -> None:
    history, took, rose = stores.history(), list[float](), []
    priority = "HIGH" if which == "high" else "NORMAL"
    with Clients(stores, 6, body("awork", history, priority)) as clients, closing(_face(stores)) as face:
        clients.more(20)
        embedded.stop_redis(stores.servers, which)
        try:
            for _ in range(3):
                before, end = completed(stores, history), time.monotonic() + (20 if FULL else 1)
                while time.monotonic() < end:
                    took.append(_submit_read_cancel(face))
                rose.append(until(lambda since=before: completed(stores, history) - since, 10))  # type: ignore[misc]
            with clients_of(stores) as servers, pytest.raises(redis.ConnectionError):
                servers[which == "low"].ping()
        finally:
            embedded.start_redis(stores.servers, which)
        clients.more(20)
        with clients_of(stores) as servers:
            until(lambda: servers[which == "low"].exists("tf:generation"), 20)  # the leader uses it again
        clients.more(20)
    clients.clean()
    once_each(stores, clients.ids, history)
    assert set(clients.met) == {"201"}
    assert sorted(took)[len(took) * 9 // 10] < 2, "each waited for the Redis that was not there"
    assert max(*took, clients.slowest) < 5
    waited = stores.one(WAITED, str(history), clients.ids)
    assert waited <= 10
    print(
        f"row 14 ({which}): {len(took)} submit+read+cancel, the slowest {max(took):.3f} s, finished meanwhile {rose},"
        f" the longest wait {waited:.2f} s"
    )


def _face(stores: World) -> Face:
    return Face(fleets.url(stores.fleet.living("api")[0]), stores.key)


def _submit_read_cancel(face: Face) -> float:
    """Submit a task for tomorrow, read it, cancel it; the slowest of the three."""
    took = []
    later = datetime(2099, 1, 1, tzinfo=UTC).isoformat()
    began = time.monotonic()
    status, _, task = face.call("POST", "/v1/tasks", {"type": "nobody:nothing", "scheduled_at": later})
    assert (status, task["status"]) == (201, "PENDING"), task
    took.append(time.monotonic() - began)
    for method, path, wanted in (("GET", "", "PENDING"), ("POST", ":cancel", "CANCELLED"), ("GET", "", "CANCELLED")):
        began = time.monotonic()
        status, _, found = face.call(method, f"/v1/tasks/{task['id']}{path}")
        assert (status, found["status"]) == (200, wanted), found
        took.append(time.monotonic() - began)
    return max(took)


def test_row_17_references_doubled_and_out_of_order_start_nothing_twice(stores: World) -> None:
    history, rand = stores.history(), random.Random(17)
    ids = stores.submit("work", 100, history=str(history), seconds=0.01)
    lists = dict.fromkeys(ids, _list(stores, "sync"))
    more = stores.submit("awork", 100, history=str(history), seconds=0.01)
    lists |= dict.fromkeys(more, _list(stores, "async"))
    with clients_of(stores) as (_, low):
        replayed = 0
        for done in (0, len(lists) // 2, len(lists)):  # while they wait, while they run, when they are over
            until(lambda least=done: completed(stores, history) >= least, 40)  # type: ignore[misc]
            again = list(lists) * 2
            rand.shuffle(again)
            for task in again:
                low.rpush(lists[task], UUID(task).bytes)
            replayed += len(again)
        until(lambda: not references(stores), 60)
    once_each(stores, lists, history)
    print(f"row 17: {replayed} replayed and read by workers, {len(lists)} tasks executed once each")


def _list(stores: World, lane: str) -> str:
    [types] = {tuple(row["types"]) for row in stores.rows(f"select {lane}_types as types from workers")}
    return list_key(lane, PriorityType.NORMAL, digest(types))


# ── PostgreSQL ──────────────────────────────────────────────────────────────────────────────────────────────


def test_row_18_a_postgresql_that_crashes_loses_nothing_and_kills_nobody(stores: World) -> None:
    history, running = stores.history(), []
    workers = {member.pid for member in stores.fleet.living("worker")}
    with Clients(stores, 8, body("awork", history, seconds=0.3)) as clients:
        for _ in range(20 if FULL else 3):
            clients.more(30, within=40)
            at_work = until(lambda: _in_progress(stores, history), 20)
            running.append(at_work)
            stores.disconnect()
            embedded.restart_postgres(stores.servers, "immediate")
        clients.more(30, within=40)
    clients.clean()
    verdict = once_each(stores, clients.ids, history)
    assert sum(clients.met[word] for word in ("503", "cut")) > 0
    assert stores.one("select count(*) from task_events where event_type::text = 'RESCUED'") == 0
    assert workers == {member.pid for member in stores.fleet.living("worker")}
    print(f"row 18: {running} tasks ran at the crashes, {dict(clients.met)}, events {dict(verdict.events)}")


def _in_progress(stores: World, history: Path) -> int:
    return int(stores.one(f"select count(*) {OF_HISTORY} and status::text = 'IN_PROGRESS'", str(history)))


def test_without_postgresql_the_api_says_503_and_every_process_stays(stores: World) -> None:
    history, members = stores.history(), stores.fleet.living()
    with Clients(stores, 8, body("awork", history)) as clients, closing(_face(stores)) as face:
        long = stores.submit("awork", 3, history=str(history), seconds=3 * LEASE)
        stores.running(long)
        clients.more(20)
        stores.disconnect()
        embedded.stop_postgres(stores.servers)
        try:
            end = time.monotonic() + 4 * LEASE
            until(lambda: clients.met["503"] >= 8, 30)
            task = f"/v1/tasks/{long[0]}"
            for method, path in (("GET", task), ("GET", "/v1/queues"), ("POST", f"{task}:cancel")):
                status, headers, said = face.call(method, path)
                assert (status, int(headers["retry-after"]) >= 1) == (503, True), said
                assert (said["code"], said["detail"]) == ("unavailable", "PostgreSQL does not answer as it should")
                assert said["fix"]
            assert face.call("GET", "/healthz")[0] == 200
            until(lambda: time.monotonic() > end, 60)  # everybody's lease is long over
        finally:
            embedded.start_postgres(stores.servers)
        began = time.monotonic()
        clients.more(1, within=30)
        back = time.monotonic() - began
        clients.more(30)
    clients.clean()
    once_each(stores, [*long, *clients.ids], history)
    assert members == stores.fleet.living()
    waited = stores.one(
        "select extract(epoch from min(created_at) - pg_postmaster_start_time())::float8 from task_events"
        " where event_type::text = 'STARTED' and created_at > pg_postmaster_start_time()"
    )
    assert waited <= 10
    print(f"PostgreSQL down: {dict(clients.met)}, submits after {back:.2f} s, starts after {waited:.2f} s")


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────


WRONG = [
    ("api", "SECRET_KEY", "short"),
    ("api", "REDIS_PORT_LOW", "0"),
    ("scheduler", "DATABASE_URL", "mysql://nowhere"),
    ("scheduler", "REDIS_HOST_HIGH", ""),
    ("worker", "TASKFLOW_WORKER_MODULES", ""),
    ("worker", "TASKFLOW_WORKER_CHILDREN", "many"),
    ("worker", "REDIS_PORT_HIGH", "a"),
]


@pytest.mark.parametrize("role", ["api", "scheduler", "worker"])
def test_a_wrong_setting_is_one_line_that_names_it_and_exit_2(role: str, tmp_path: Path) -> None:
    right = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "SECRET_KEY": SECRET_KEY,
        "TASKFLOW_API_PORT": str(fleets.free_port()),
        "TASKFLOW_WORKER_MODULES": "tests.system.tasks",
        "TASKFLOW_WORKER_CHILDREN": "1",
        "HEARTBEAT_INTERVAL_SECONDS": "0.5",
        **{f"REDIS_HOST_{level}": "127.0.0.1" for level in ("HIGH", "LOW")},
        **{f"REDIS_PORT_{level}": "1" for level in ("HIGH", "LOW")},
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
    }
    started = {
        (name, value): subprocess.Popen(
            [sys.executable, "-I", "-u", "-m", f"services.{role}.main"],
            env={**right, name: value},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for of, name, value in WRONG
        if of == role
    }
    said: dict[str, tuple[int, str]] = {}
    for (name, _), process in started.items():
        try:
            text, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:  # it runs, whatever is wrong
            process.kill()
            text, _ = process.communicate()
        said[name] = process.returncode, text
    for name, (code, text) in said.items():
        assert (code, text.count("\n"), name in text) == (2, 1, True), f"{role} with a wrong {name}: {code} {text}"
