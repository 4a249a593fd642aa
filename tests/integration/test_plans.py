"""The hot statements stay on their indexes, whatever PostgreSQL believes about the table.

Three beliefs, each at a million rows: none at all, those of another table, and plans that a session made while the
table was analysed and empty, and has kept since. Counted are the rows that each scan looked at, so a right index
that is walked from end to end fails as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from uuid import UUID

import pytest

from core import lookups, search
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.lifecycle import Cause, TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Ending, Reason, Submission
from core.sql import statement
from tests.conftest import _database
from tests.machine import million
from tests.machine.plans import FAILED_PLAN_MS, FUNCTIONS, PLACE, Session, Spy, Visit, rolled_back
from tests.worker_secret import SECRET

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TYPES = [f"t{number}" for number in range(7)]
QUEUES = [f"q{number}" for number in range(20)]
ROOMY = "q2"  # its cap leaves room, which goes to the siblings of a key
PK = "tasks_pkey"
RUNNING = 25_000  # rows that run, or did in a transaction that was rolled back: what a look at all may visit


def task(number: int) -> UUID:
    return UUID(int=number)


def ending(number: int) -> Ending:
    claim = UUID(f"{number:x}".rjust(32, "c"))
    return Ending(id=task(number), attempt=1, claim=claim, cause=Cause.SUCCEED, reason=Reason.RETURNED, result="1")


QUEUED = [task(100 * n + 80) for n in range(100, 300)]
HELD = [100 * n + 99 for n in range(100, 300)]
ENDINGS = [ending(number) for number in HELD]
IDS = [task(number) for number in HELD]
WORKER = task(7)
KEYS = [GateKey(queue=f"q{n // 100 % 20}", owner_id=n % 50, key=f"k{n % 1000}") for n in range(95, 20_095, 100)]
CURSORS = [
    queue.Cursor(queue=name, type=kind, priority=priority, seq=1000, limit=10)
    for name in QUEUES
    for kind in TYPES
    for priority in PriorityType
]
MARKS = {(cursor.queue, cursor.type, cursor.priority): cursor.seq for cursor in CURSORS}
NEW = [Submission(id=task(2_000_000 + n), owner_id=1, type="t1", queue="q2", concurrency_key="k") for n in range(200)]
CASE = Callable[[Any], Awaitable[Any]]

# The verb, and for each of its statements: the indexes of tasks that it may use, and how many rows it may visit.
CASES: dict[str, tuple[CASE, dict[str, tuple[set[str], int]]]] = {
    "submit": (lambda tx: queue.submit(tx, NEW), {"submit": (set(), 0)}),
    "find_submitted": (lambda tx: queue.find_submitted(tx, IDS), {"*": ({PK}, 200)}),
    "born": (lambda tx: lookups.born(tx, IDS), {"born": ({PK}, 200)}),
    "feed": (lambda tx: queue.feed(tx, CURSORS), {"feed": ({"tasks_ready"}, 4200)}),
    "poll": (
        lambda tx: queue.poll(tx, queues=QUEUES, types=TYPES, limit=20),
        {"poll": ({"tasks_ready"}, 20 * 7 * 3 * 20)},
    ),
    "poll beyond": (
        lambda tx: queue.poll(tx, queues=QUEUES, types=TYPES, limit=20, beyond=MARKS),
        {"poll": ({"tasks_ready"}, 20 * 7 * 3 * 20)},
    ),
    "claim": (
        lambda tx: queue.claim(tx, QUEUED, worker=WORKER, secret=SECRET, claim=task(1), types=TYPES),
        {"claim": ({PK, PLACE}, 400)},
    ),
    "claimed_under": (
        lambda tx: queue.claimed_under(tx, IDS, task(1), worker=WORKER, secret=SECRET),
        {"claimed_under": ({PK}, 200)},
    ),
    "unclaimed": (lambda tx: queue.unclaimed(tx, IDS, TYPES), {"unclaimed": ({PK}, 200)}),
    "beat": (
        lambda tx: queue.beat(tx, WORKER, secret=SECRET, free_sync=1, free_async=0),
        {"beat": ({"tasks_stopping"}, 200)},
    ),
    "record_progress": (
        lambda tx: queue.record_progress(
            tx, [queue.Progress(id=e.id, attempt=1, claim=e.claim, fraction=0.5) for e in ENDINGS]
        ),
        {"progress": ({PK}, 400)},
    ),
    "still_held": (lambda tx: queue.still_held(tx, ENDINGS), {"still_held": ({PK}, 200)}),
    "append_logs": (
        lambda tx: queue.append_logs(
            tx, [queue.LogChunk(id=e.id, attempt=1, claim=e.claim, text="x") for e in ENDINGS]
        ),
        {"append_logs": ({PK}, 200)},
    ),
    "inventory": (lambda tx: queue.inventory(tx, WORKER, secret=SECRET), {"inventory": ({"tasks_held"}, 1000)}),
    "finish": (lambda tx: queue.finish(tx, ENDINGS), {"succeed": ({PK}, 200)}),
    "finish in another way": (
        lambda tx: queue.finish(tx, [end._replace(cause=Cause.RETRY, reason=Reason.ERROR) for end in ENDINGS]),
        {"finish": ({PK}, 400)},
    ),
    "finish with logs": (
        lambda tx: queue.finish(tx, [end._replace(logs="a line") for end in ENDINGS]),
        {"finish": ({PK}, 400)},
    ),
    "cancel": (lambda tx: queue.cancel(tx, IDS, owner_id=None, by="me"), {"move": ({PK}, 400)}),
    "reprioritize": (
        lambda tx: queue.reprioritize(tx, QUEUED, PriorityType.HIGH, owner_id=None, by="me"),
        {"reprioritize": ({PK}, 400)},
    ),
    "rescue": (queue.rescue, {"rescue": ({PK, "tasks_held"}, 2500)}),
    "raise_floors": (
        lambda tx: queue.raise_floors(tx, 900_000, seconds=60.0),
        {"raise_floors": ({"tasks_ready", "tasks_finished", "tasks_failed"}, 20 * (2 + 7 * 3))},
    ),
    "lower_floors": (queue.lower_floors, {"lower_floors": ({"tasks_ready"}, 20 * 7 * 3)}),
    "promote_due": (lambda tx: queue.promote_due(tx, 1000), {"promote_due": ({PK, "tasks_due"}, 2000)}),
    "demote": (
        lambda tx: queue.demote(tx, types=TYPES, unannounced=True),
        {"demote": ({PK, "tasks_permits"}, RUNNING)},
    ),
    "promote_gated": (
        lambda tx: queue.promote_gated(tx, [key for key in KEYS if key.queue != ROOMY], types=TYPES),
        {
            "gate_lock": (set(), 0),
            "gate_count": ({"tasks_permits", "tasks_held"}, RUNNING + 2000),
            "gate_promote": ({PK, "tasks_gate"}, 3000),
        },
    ),
    "promote_gated in a capped queue": (
        lambda tx: queue.promote_gated(tx, [GateKey(queue=ROOMY, owner_id=1, key="none")], types=TYPES),
        {
            "gate_lock": (set(), 0),
            "gate_count": ({"tasks_permits", "tasks_held"}, RUNNING + 2000),
            "gate_promote": ({PK, "tasks_gate"}, 3000),
            "gate_siblings": ({"tasks_gate"}, 500),
        },
    ),
    "walk_gates": (queue.walk_gates, {"gate_walk": ({"tasks_gate"}, 501)}),
    "expire": (
        lambda tx: queue.expire(tx, 200),
        {"expired": ({"tasks_expiring"}, 200), "move": ({PK}, 400)},
    ),
    "cancel_overdue": (
        lambda tx: queue.cancel_overdue(tx, 200),
        {"cancel_overdue": ({"tasks_cancelling"}, 200), "move": ({PK}, 400)},
    ),
    "overdue": (lambda tx: queue.overdue(tx, grace=30.0), {"overdue": ({"tasks_held"}, RUNNING)}),
    "purge": (
        lambda tx: queue.purge(tx, 500),
        {
            "purge_keys": (set(), 0),
            "purge_tries": (set(), 0),
            "purge_tasks": ({PK, "tasks_finished", "tasks_failed"}, 1700),
        },
    ),
    "forget_workers": (lambda tx: queue.forget_workers(tx, age=0), {"workers_forget": ({"tasks_held"}, 10)}),
    "regate": (lambda tx: queue.regate(tx, "q1"), {"regate": ({PK, "tasks_ready", "tasks_held"}, RUNNING + 17_000)}),
    "depth": (
        lambda tx: queue.depth(tx, most=1000),
        {
            "depth": (
                {"tasks_delayed", "tasks_gate", "tasks_ready", "tasks_held", "tasks_failed"},
                RUNNING + 20 * (4 * 1000 + 21),
            )
        },
    ),
    "demand": (
        lambda tx: queue.demand(tx, most=1000),
        {
            "demand": (
                {
                    "tasks_delayed",
                    "tasks_gate",
                    "tasks_gated_types",
                    "tasks_ready",
                    "tasks_held",
                    "tasks_permits",
                    "tasks_failed",
                    "tasks_finished",
                },
                RUNNING + 20 * (8 * 1000 + 1000 + 200 + 21),
            )
        },
    ),
    "pod_workers": (queue.pod_workers, {"pod_workers": ({"tasks_held"}, RUNNING)}),
    "purge_queue": (
        lambda tx: queue.purge_queue(tx, "q3", 500),
        {
            "queue_waiting": ({PK, "tasks_ready", "tasks_gate", "tasks_delayed", "tasks_blocked"}, 1000),
            "move": ({PK}, 1000),
        },
    ),
    "depth_by_priority": (
        lambda tx: queue.depth_by_priority(tx, most=1000),
        {"depth_by_priority": ({"tasks_delayed", "tasks_gate", "tasks_ready", "tasks_held"}, RUNNING + 20 * 3 * 1000)},
    ),
    "list": (
        lambda tx: search.search(tx, search.Filter(owner_id=3), after=task(900_000), limit=50),
        {"*": ({"tasks_owner"}, 50)},
    ),
    "list by status": (
        lambda tx: search.search(tx, search.Filter(owner_id=3, status=[TaskStatus.COMPLETED], queue="q1"), limit=50),
        {"*": ({"tasks_owner"}, 4000)},
    ),
    "list all": (
        lambda tx: search.search(
            tx, search.Filter(type="t1", created_after=datetime(2020, 1, 1, tzinfo=UTC)), after=task(900_000)
        ),
        {"*": ({PK}, 1000)},
    ),
    "get": (lambda tx: search.get(tx, task(5), owner_id=5), {"*": ({PK}, 1)}),
    "statuses": (lambda tx: search.statuses(tx, IDS), {"*": ({PK}, 200)}),
}
# What the guard is for: as it would be written without a second thought.
PLAIN_JOIN = """
with wanted as materialized (select unnest($1::uuid[]) as id)
update tasks set updated_at = clock_timestamp() from wanted where tasks.id = wanted.id
"""
BELIEFS = ("no statistics", "those of another table", "a plan kept from the empty table")
ALL = {statement(path.name.removesuffix(".sql")): path.name.removesuffix(".sql")
       for path in files("core.sql").iterdir() if path.name.endswith(".sql")} | FUNCTIONS  # fmt: skip

Seen = dict[tuple[str, str, str], list[Visit] | str]


async def measure(session: Session, belief: str, seen: Seen) -> None:
    for name, (verb, _) in CASES.items():
        async with rolled_back(session.connection) as connection:
            spy = Spy(connection)
            await verb(spy)
        for text, args in spy.seen:
            key = belief, name, ALL.get(text, "*")
            try:
                async with rolled_back(session.connection):
                    seen[key] = await session.visits(text, args)
            except Exception as error:  # noqa: BLE001 - the test of this statement tells
                seen[key] = f"{type(error).__name__}: {error}"


async def explore(url: str) -> Seen:
    seen: Seen = {}
    async with Database(url, name="plans", command_seconds=120, work_mem="4MB") as database:
        admin = await database.own_connection()
        await admin.execute(million.EMPTY)
        kept, fresh, misled = [Session(await database.own_connection()) for _ in BELIEFS]
        for text in (*ALL, PLAIN_JOIN):
            await kept.prepare(text)
        await admin.execute(million.MILLION)
        for session in (kept, fresh, misled):
            await session.connection.execute(f"set statement_timeout = {FAILED_PLAN_MS}")
        await measure(kept, BELIEFS[2], seen)
        async with rolled_back(kept.connection):
            seen[BELIEFS[2], "plain join", "*"] = await kept.visits(PLAIN_JOIN, (IDS[:2],))
        # Only now: it makes PostgreSQL plan anew, so it would spare the session that keeps its plans.
        await admin.execute(million.NO_STATISTICS)
        await measure(fresh, BELIEFS[0], seen)
        await admin.execute(million.STRANGER)
        await measure(misled, BELIEFS[1], seen)
        for connection in (admin, kept.connection, fresh.connection, misled.connection):
            await connection.close()
    return seen


@pytest.fixture(scope="module")
def plans(postgres: Any, template: str) -> Iterator[Seen]:
    with _database(postgres, template) as url:
        yield asyncio.run(explore(url))


@pytest.mark.parametrize("belief", BELIEFS)
@pytest.mark.parametrize("name", CASES)
def test_a_hot_statement_stays_on_its_index(plans: Seen, name: str, belief: str) -> None:
    expected = CASES[name][1]
    found = {part: visits for (about, verb, part), visits in plans.items() if (about, verb) == (belief, name)}
    assert found.keys() == expected.keys()
    for part, visits in found.items():
        indexes, most = expected[part]
        assert not isinstance(visits, str), f"{part}: {visits}"
        assert {visit.index for visit in visits} == indexes, part
        assert sum(visit.rows for visit in visits) <= most, (part, visits)


def test_the_guard_sees_a_plain_join_walk_the_whole_table(plans: Seen) -> None:
    visits = plans[BELIEFS[2], "plain join", "*"]
    assert not isinstance(visits, str)
    assert sum(visit.rows for visit in visits) >= 1_000_000


def test_every_statement_about_tasks_is_watched() -> None:
    watched = {part for _, expected in CASES.values() for part in expected}
    quiet = {"ended_under", "waiting_facts"}  # no look at tasks; counts behind a cap's limit, for one task
    by_hand = {"verify_bound", "verify_newest", "verify_slice"}  # no task waits for them
    about = {name for text, name in ALL.items() if " tasks" in text.replace("\n", " ")}
    others = {"append_logs", "record_fenced", "keyed_read", "ensure_queues", "worker_register"}
    assert about - watched - quiet - by_hand <= others
