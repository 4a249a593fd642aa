"""Feeding: what became QUEUED behind the feeder's cursor starts soon, what nobody can run is in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import redis

from core import queue_manager as queue
from core.database import Database
from core.domain.ids import uuid7
from core.domain.ordering import PriorityType, digest, list_key
from core.domain.task import Submission
from services.dev import fleet as fleets
from services.dev.fleet import Member
from taskflow_queue import Client, verbs
from taskflow_queue.options import Options
from tests.signals import until
from tests.system.conftest import FULL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(600 if FULL else 120),
]

SOON = 10.0  # what is promised of a row behind the cursor
FLOOD = 10_000
HOUR = 3600.0
LATE_COMMIT = 30.0 if FULL else 0.0  # how long a transaction stays open at least
WORK, AWORK = "tests.system.tasks:work", "tests.system.tasks:awork"
STARTS = "select count(*) from task_events where event_type::text = 'STARTED' and task_id = any(%s::uuid[])"
MEDIAN = """
select percentile_cont(0.5) within group (order by extract(epoch from event.created_at - tasks.created_at))::float8
from tasks join task_events as event on event.task_id = tasks.id and event.event_type::text = 'STARTED'
where tasks.id = any(%s::uuid[])
"""
GAP = """
select extract(epoch from min(started.created_at) - moved.created_at)::float8
from task_events as moved join task_events as started on started.task_id = moved.task_id
where moved.task_id = %s and moved.event_type::text = %s
  and started.event_type::text = 'STARTED' and started.created_at > moved.created_at
group by moved.created_at order by moved.created_at desc limit 1
"""
SERVER_AHEAD = """
from datetime import timedelta
from core import clock
right = clock.SystemClock.now
clock.SystemClock.now = lambda self: right(self) + timedelta(hours=1)
clock.now = clock.system.now
from services.api.main import main
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def fleet(module_world: World) -> World:
    """An API, a scheduler, and two workers that give back at once what they run when they are told to stop."""
    module_world.api()
    module_world.fleet.scheduler()
    module_world.workers(2, TASKFLOW_WORKER_DRAIN_SECONDS="0")
    return module_world


def verb(world: World, act: Callable[[Any], Awaitable[Any]]) -> Any:
    """Call a verb in a transaction of its own, and give nobody a hint."""

    async def do() -> Any:
        async with Database(world.database_url, name="tf-test", size=1) as database, database.begin() as tx:
            return await act(tx)

    return asyncio.run(do())


def submission(world: World, kind: str = WORK, name: str = "sync", /, ahead: float = 0.0, **more: Any) -> Submission:
    made = uuid7(int((time.time() + ahead) * 1000), secrets.token_bytes(10))
    payload = json.dumps(more.pop("payload", {}))
    return Submission(id=made, owner_id=world.owner, type=kind, queue=name, payload=payload, **more)


def insert(world: World, tasks: Sequence[Submission]) -> list[str]:
    """Insert behind the API's back: no credit, no wake."""
    for at in range(0, len(tasks), 2000):
        verb(world, lambda tx, part=tasks[at : at + 2000]: queue.submit(tx, part))
    return [str(task.id) for task in tasks]


def send(world: World, name: str, queue_name: str, payloads: Sequence[dict[str, Any]]) -> list[str]:
    """Submit with one request."""
    bodies = verbs.bodies_of(name, [json.dumps(one).encode() for one in payloads], Options(queue=queue_name))
    return world.submit_bodies(bodies)


# A worker that polls by chance goes on until nothing is left: there must be more than it can run in the two seconds in
# which the feeder may not have looked yet (rows that came without a hint, while credits are out).
MANY = 300


def hinted(world: World, ids: Sequence[str], name: str = "sync") -> bool:
    """Whether the reference of one of these, which nobody but the feeder can have hinted, is in the list now."""
    [worker] = world.rows("select sync_types from workers where state = 'alive' limit 1")
    host, port = world.servers.redis_low or ("", 0)
    with redis.Redis(host, port) as low:
        waiting = low.lrange(list_key(name, PriorityType.NORMAL, digest(worker["sync_types"])), 0, -1)
    return not {UUID(task).bytes for task in ids}.isdisjoint(waiting)


def started(world: World, ids: Sequence[str], times: int = 1) -> bool:
    return bool(world.one(STARTS, list(ids)) >= times * len(ids))


def amid_traffic(world: World, history: Path, done: Callable[[], bool], within: float = SOON) -> None:
    """Wait while other tasks of the same queue and type come and go."""

    def step() -> bool:
        send(world, WORK, "sync", [{"history": str(history)}])
        return done()

    until(step, within, every=0.05)


def gap(world: World, task: str, event: str) -> float:
    """The seconds from the last such event of a task to its next start."""
    return float(world.one(GAP, task, event))


# ── what nobody can run ─────────────────────────────────────────────────────────────────────────────────


def test_a_flood_of_an_unknown_type_delays_nobody(fleet: World, history: Path) -> None:
    good = [{"history": str(history)}] * 100
    send(fleet, AWORK, "async", good[:10])
    without = send(fleet, AWORK, "async", good)
    fleet.ended(without)
    flood = [submission(fleet, "nowhere:unknown", "async") for _ in range(FLOOD // 2)]
    flood += [submission(fleet, "nowhere:unknown", "async", priority=PriorityType.HIGH) for _ in range(FLOOD // 2)]
    insert(fleet, flood)
    behind = send(fleet, AWORK, "async", good)
    statuses = fleet.ended(behind)

    assert set(statuses.values()) == {"COMPLETED"}
    before, after = fleet.one(MEDIAN, without), fleet.one(MEDIAN, behind)
    assert after - before <= 2.0, (before, after)  # a hint that a busy Redis lost costs a second
    waiting = "select count(*) from tasks where type = 'nowhere:unknown' and status::text = 'QUEUED' and attempt = 0"
    assert fleet.one(waiting) == FLOOD
    last = "select max(seq) from tasks where type = 'nowhere:unknown'"
    assert fleet.one("select min(seq) from tasks where id = any(%s::uuid[])", behind) > fleet.one(last)


def test_an_unknown_type_waits_says_why_and_starts_with_a_new_worker(
    fleet: World, history: Path, tmp_path: Path
) -> None:
    (tmp_path / "newcomers.py").write_text(
        "from taskflow_queue import task\n\n@task(queue='sync')\ndef newcomer() -> str:\n    return 'here'\n"
    )
    [nowhere] = send(fleet, "newcomers:newcomer", "not-served", [{}])
    ids = send(fleet, "newcomers:newcomer", "sync", [{}] * 3)
    later = insert(fleet, [submission(fleet, payload={"history": str(history), "seconds": 0.02}) for _ in range(MANY)])
    until(lambda: hinted(fleet, later), 10, every=0.005)
    fleet.ended(later)
    codes = {}
    for task in (nowhere, ids[0]):
        info = fleet.client.get(task)
        assert (info.status, info.attempt) == ("QUEUED", 0)
        assert info.waiting is not None
        codes[task] = info.waiting.code
    assert codes == {nowhere: "no_worker", ids[0]: "no_capable_worker"}

    [member] = fleet.workers(1, modules=["newcomers"], PYTHONPATH=str(tmp_path))
    amid_traffic(fleet, history, lambda: started(fleet, ids))
    assert set(fleet.ended(ids).values()) == {"COMPLETED"}
    assert fleet.client.get(nowhere).status == "QUEUED"
    fleet.stop(member)


# ── behind the cursor ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def open_transaction(world: World, task: Submission) -> Iterator[None]:
    """Insert a task, and commit only at the end of the block."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def begin() -> None:
            database = await stack.enter_async_context(Database(world.database_url, name="tf-test", size=1))
            tx = await stack.enter_async_context(database.begin())
            await tx.execute("set local idle_in_transaction_session_timeout = 0")
            await queue.submit(tx, [task])

        runner.run(begin())
        try:
            yield
        finally:
            runner.run(stack.aclose())


def test_a_transaction_that_commits_late(fleet: World, history: Path) -> None:
    late = submission(fleet, payload={"history": str(history)})
    with open_transaction(fleet, late):
        opened = time.monotonic()
        later = insert(
            fleet, [submission(fleet, payload={"history": str(history), "seconds": 0.02}) for _ in range(MANY)]
        )
        until(lambda: hinted(fleet, later), 10, every=0.005)
        enough = lambda: time.monotonic() - opened > LATE_COMMIT and started(fleet, later)  # noqa: E731
        amid_traffic(fleet, history, enough, 30 + LATE_COMMIT)
        assert fleet.statuses([str(late.id)]) == {}
    committed = fleet.one("select clock_timestamp()")
    amid_traffic(fleet, history, lambda: started(fleet, [str(late.id)]))

    seqs = "select min(seq) from tasks where id = any(%s::uuid[])"
    assert fleet.one(seqs, [str(late.id)]) < fleet.one(seqs, later), "it was not behind anything"
    waited = "select extract(epoch from started_at - %s)::float8 from tasks where id = %s"
    assert fleet.one(waited, committed, str(late.id)) < SOON
    assert fleet.ended([str(late.id)]) == {str(late.id): "COMPLETED"}


def test_a_retry(fleet: World, history: Path) -> None:
    ids = fleet.submit("fails", 5, history=str(history))
    amid_traffic(fleet, history, lambda: started(fleet, ids, 2))
    assert set(fleet.ended(ids).values()) == {"COMPLETED"}
    assert max(gap(fleet, task, "RETRIED") for task in ids) < SOON


def test_a_release(fleet: World, history: Path) -> None:
    task = fleet.submit("awork", history=str(history), seconds=120)[0]
    fleet.running([task])
    holder = fleet.holders([task])[task]
    member = next(one for one in fleet.fleet.living("worker") if one.pid == holder)
    member.signal(signal.SIGTERM)
    amid_traffic(fleet, history, lambda: started(fleet, [task], 2), 20)
    assert gap(fleet, task, "RELEASED") < SOON
    assert fleet.holders([task])[task] != holder
    row = fleet.rows("select attempt, retry_count, crash_count, worker_deaths from tasks where id = %s", task)
    assert [tuple(one.values()) for one in row] == [(2, 0, 0, 0)]
    fleet.client.cancel(task, force=True)
    until(lambda: not member.alive(), 10)
    assert member.process.returncode == 0
    fleet.fleet.ready(fleet.fleet.replace(member))


def test_a_redrive(fleet: World, history: Path) -> None:
    ids = fleet.submit_each("tests.handlers:fail", [{}] * 3, max_attempts=1)
    assert set(fleet.ended(ids).values()) == {"FAILED"}
    for task in ids:
        fleet.client.retry(task)
    amid_traffic(fleet, history, lambda: started(fleet, ids, 2))
    assert max(gap(fleet, task, "REDRIVEN") for task in ids) < SOON
    fleet.ended(ids)


def test_a_raised_priority(fleet: World, history: Path) -> None:
    payload = {"history": str(history), "seconds": 0.05}
    normal = send(fleet, WORK, "sync", [payload] * 120)
    low = insert(fleet, [submission(fleet, payload=payload, priority=PriorityType.LOW) for _ in range(3)])
    until(lambda: fleet.one(STARTS, normal) > 10, 10)
    assert not started(fleet, low[:1])
    raised = verb(
        fleet, lambda tx: queue.reprioritize(tx, [UUID(low[0])], PriorityType.HIGH, owner_id=None, by="a test")
    )
    assert [one.status.value for one in raised] == ["QUEUED"]
    until(lambda: started(fleet, low[:1]), SOON)
    before = "select count(*) from tasks where id = any(%s::uuid[]) and (started_at is null or started_at > (select"
    before += " started_at from tasks where id = %s))"
    overtaken = fleet.one(before, [*normal, *low[1:]], low[0])
    assert gap(fleet, low[0], "REPRIORITIZED") < SOON
    assert overtaken > 2, "nothing was left that it could have overtaken"
    assert set(fleet.ended([*normal, *low]).values()) == {"COMPLETED"}


def test_a_resumed_queue(fleet: World, history: Path) -> None:
    fleet.ended(fleet.submit_each("tests.handlers:noop", [{}]))  # a queue appears with its first task
    fleet.client.pause("default")
    ids = fleet.submit_each("tests.handlers:noop", [{}] * 5)
    later = insert(fleet, [submission(fleet, payload={"history": str(history), "seconds": 0.02}) for _ in range(MANY)])
    until(lambda: hinted(fleet, later), 10, every=0.005)
    fleet.ended(later)
    info = fleet.client.get(ids[0])
    assert info.waiting is not None
    assert (info.status, info.waiting.code, fleet.one(STARTS, ids)) == ("QUEUED", "queue_paused", 0)
    resumed = fleet.one("select clock_timestamp()")
    fleet.client.resume("default")
    amid_traffic(fleet, history, lambda: started(fleet, ids))
    fleet.ended(ids)
    waited = "select extract(epoch from max(started_at) - %s)::float8 from tasks where id = any(%s::uuid[])"
    assert 0 < fleet.one(waited, resumed, ids) < SOON


def test_an_api_whose_clock_is_an_hour_ahead(fleet: World, history: Path) -> None:
    payload = {"history": str(history)}
    with api_ahead(fleet) as ahead:
        ids = [ahead.submit(WORK, payload, queue="sync").id for _ in range(10)]
        usual = send(fleet, WORK, "sync", [payload] * 10)
        ids += [ahead.submit(WORK, payload, queue="sync").id for _ in range(10)]
    shifts = [(UUID(task).int >> 80) / 1000 - time.time() for task in ids]
    assert min(shifts) > HOUR - 60, "its clock was not ahead"
    amid_traffic(fleet, history, lambda: started(fleet, [*ids, *usual]))
    assert set(fleet.ended([*ids, *usual]).values()) == {"COMPLETED"}
    longest = "select max(extract(epoch from started_at - created_at))::float8 from tasks where id = any(%s::uuid[])"
    assert 0 <= fleet.one(longest, [*ids, *usual]) < SOON

    # The same without anybody's hint: what is found is found by `seq`, not by the clock in the id.
    alone = insert(fleet, [submission(fleet, payload=payload, ahead=HOUR) for _ in range(20)])
    until(lambda: started(fleet, alone), SOON)


@contextmanager
def api_ahead(world: World) -> Iterator[Client]:
    """An API process whose wall clock, and nothing else, is an hour ahead."""
    port = str(fleets.free_port())
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = {**kept, **world.fleet.env, "TASKFLOW_API_PORT": port, fleets.MARK: world.fleet.mark}
    log = world.folder / "ahead.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-I", "-u", "-c", SERVER_AHEAD], env=env, stdout=out, stderr=out)
    member = Member("api", "ahead", {"TASKFLOW_API_PORT": port}, log, process)
    try:
        world.fleet.ready(member)
        with Client(fleets.url(member), world.key, patience=20) as client:
            yield client
    finally:
        world.fleet.stop(member)
