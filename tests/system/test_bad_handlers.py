"""Bad handlers: each ends as promised, and its neighbours end as if it had not been there.

Rows 37 and 38 of reliability.md §1, and what issue 3 lists under "Bad input and faults". PostgreSQL's rows and events
are the evidence.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis

from core.domain.ordering import PriorityType, digest, list_key
from taskflow_queue import verbs
from taskflow_queue.options import Options
from tests.signals import until
from tests.system.conftest import FULL
from tests.system.history import Verdict, read, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(600 if FULL else 120),
]

BESIDE_SYNC, BESIDE_ASYNC = 20, 30
SLOTS = 25  # async tasks a child: two children make a concurrency of 50
MEMORY_MB = 300
FREE_OF_CHARGE = {"suspect", "released"}
UNHARMED = (
    "select count(*) from tasks where id = any(%s::uuid[]) and (retry_count, crash_count, worker_deaths) = (0, 0, 0)"
)


@pytest.fixture(scope="module")
def fleet(module_world: World) -> World:
    """An API, a scheduler, and two workers with one child each."""
    module_world.api()
    module_world.fleet.scheduler()
    module_world.workers(2, TASKFLOW_WORKER_SLOTS=str(SLOTS), TASKFLOW_WORKER_MEMORY_MB=str(MEMORY_MB))
    return module_world


@pytest.fixture(autouse=True)
def _all_processes_are_well(fleet: World, request: pytest.FixtureRequest) -> Iterator[None]:
    """No bad handler may cost more than its child."""
    before = {member.pid for member in fleet.fleet.living()}
    yield
    after = {member.pid for member in fleet.fleet.living()}
    assert len(after) == len(before) == 4
    assert after == before or "rescue" in request.node.name


def send(world: World, tasks: Sequence[tuple[str, str, dict[str, Any]]], **said: Any) -> list[str]:
    """Submit tasks (name, queue, payload) with one request."""
    bodies = [
        body
        for name, queue, payload in tasks
        for body in verbs.bodies_of(name, [json.dumps(payload).encode()], Options(queue=queue, **said))
    ]
    return world.submit_bodies(bodies)


def neighbours(
    history: Path, sync: int = BESIDE_SYNC, beside: int = BESIDE_ASYNC, until: Path | None = None
) -> list[tuple[str, str, dict[str, Any]]]:
    """So many tasks that do nothing wrong; the async ones last a moment, or until there is that file."""
    slow = ("tests.system.tasks:awork", "async", {"history": str(history), "seconds": 0.6})
    if until is not None:
        slow = ("tests.system.tasks:abeside", "async", {"history": str(history), "until": str(until)})
    quick = ("tests.system.tasks:work", "sync", {"history": str(history), "seconds": 0.01})
    return [slow] * beside + [quick] * sync


def company(world: World, history: Path, number: int) -> tuple[list[str], Path]:
    """So many async tasks, all of them running now, and the file that they wait for."""
    happened = history.with_suffix(".happened")
    ids = send(world, neighbours(history, sync=0, beside=number, until=happened))
    until(lambda: len([line for line in read(history) if line["word"] == "start"]) >= number, 15)
    return ids, happened


def run_beside(world: World, history: Path, bad: Bad) -> tuple[str, list[str]]:
    """Start the async neighbours, who stay until the bad one has ended once; then that one, then the sync ones."""
    ids, happened = company(world, history, BESIDE_ASYNC)
    [task] = send(world, [(f"tests.handlers:{bad.name}", "default", bad.payload)], priority="HIGH", **bad.said)
    ids += send(world, neighbours(history, beside=0))
    until(lambda: life(world, task)["causes"], 60)
    happened.touch()
    world.ended([task, *ids], 60)
    return task, ids


def unharmed(world: World, ids: Sequence[str], history: Path) -> Verdict:
    """The neighbours: COMPLETED by one charged attempt each, whatever else they went through was free of charge."""
    verdict = verify(world, ids, history).clean()
    assert set(verdict.causes) <= {"returned"} | FREE_OF_CHARGE, verdict.causes
    assert (verdict.causes["returned"], verdict.charged) == (len(ids), 0)
    assert world.one(UNHARMED, list(ids)) == len(ids)
    return verdict


def life(world: World, task: str) -> dict[str, Any]:
    """A task's row, and the causes of its endings in order."""
    [row] = world.rows("select *, id::text, status::text as status from tasks where id = %s", task)
    events = world.rows(
        "select cause from task_events where task_id = %s and claim is not null and cause <> ''"
        " order by created_at, id",
        task,
    )
    return row | {"causes": [event["cause"] for event in events]}


@dataclass
class Bad:
    """A bad handler and what is promised of it. `causes` are its charged endings in order."""

    name: str
    status: str
    causes: list[str]
    payload: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    crashes: int = 0
    error: str = ""
    disturbs: bool = False  # its child goes, and what was in it is run again

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.payload.values())])


def dies(name: str, cause: str = "crash", error: str = "Crashed", **payload: Any) -> Bad:
    return Bad(name, "QUARANTINED", [cause] * 2, payload, crashes=2, error=error, disturbs=True)


BADS = [
    Bad("fail", "FAILED", ["error"] * 3, retries=3, error="ValueError"),
    Bad("afail", "FAILED", ["error"] * 3, retries=3, error="ValueError"),
    Bad("odd_result", "FAILED", ["result_rejected"], {"which": "object"}, retries=1, error="ResultRejected"),
    Bad("odd_result", "FAILED", ["result_rejected"], {"which": "huge"}, retries=1, error="ResultRejected"),
    Bad("odd_text", "FAILED", ["error"] * 3, retries=3, error="ValueError"),
    dies("die", code=0),
    dies("adie"),
    dies("segfault"),
    dies("asegfault"),
    dies("eat", "out_of_memory", "OutOfMemory", megabytes=4096, pause=0.005),
    Bad("spin", "FAILED", ["timeout"] * 2, {}, {"timeout": 2.0, "max_attempts": 2}, retries=2, error="TimedOut"),
    Bad(
        "aspin",
        "FAILED",
        ["timeout"] * 2,
        {},
        {"timeout": 2.0, "max_attempts": 2},
        retries=2,
        error="TimedOut",
        disturbs=True,
    ),
]


@pytest.mark.parametrize("bad", BADS, ids=str)
def test_a_bad_handler_ends_as_promised_and_its_neighbours_complete(fleet: World, history: Path, bad: Bad) -> None:
    task, ids = run_beside(fleet, history, bad)

    row = life(fleet, task)
    charged = [cause for cause in row["causes"] if cause not in FREE_OF_CHARGE]
    assert (row["status"], charged) == (bad.status, bad.causes), row["causes"]
    assert (row["retry_count"], row["crash_count"], row["worker_deaths"]) == (bad.retries, bad.crashes, 0)
    assert row["attempt"] == len(row["causes"])
    assert (row["result"], row["error"]["type"]) == (None, bad.error)
    verdict = unharmed(fleet, ids, history)
    if bad.disturbs:
        assert sum(verdict.causes[cause] for cause in FREE_OF_CHARGE) > 0, "nobody was beside it"
    else:
        assert "suspect" not in verdict.causes  # some may have waited behind others, and been given back


def test_what_no_column_can_hold_is_written_as_far_as_it_can(fleet: World) -> None:
    ids = send(fleet, [("tests.handlers:odd_text", "default", {})], max_attempts=1)
    ids += send(
        fleet,
        [("tests.handlers:odd_result", "default", {"which": which}) for which in ("nan", "nul", "surrogate", "set")],
    )
    fleet.ended(ids)
    error = fleet.client.get(ids[0]).error
    assert error is not None
    assert error.message == "nul \N{REPLACEMENT CHARACTER} surrogate \N{REPLACEMENT CHARACTER} end"
    for task in ids[1:]:
        row = life(fleet, task)
        assert (row["status"], row["causes"]) == ("FAILED", ["result_rejected"]), task


@pytest.mark.parametrize("name", ["ignore_cancel", "aignore_cancel"])
def test_who_ignores_a_cancel_is_cancelled_when_the_grace_is_over(fleet: World, history: Path, name: str) -> None:
    everybody = neighbours(history)
    ids = send(fleet, everybody[:BESIDE_ASYNC])
    [bad] = send(fleet, [(f"tests.handlers:{name}", "default", {"seconds": 60})], priority="HIGH")
    fleet.running([bad])
    ids += send(fleet, everybody[BESIDE_ASYNC:])

    assert fleet.client.cancel(bad, grace=1.0) == "CANCELLING"
    fleet.ended([bad], 10)
    row = life(fleet, bad)
    assert (row["status"], row["result"], row["retry_count"], row["crash_count"]) == ("CANCELLED", None, 0, 0)
    assert row["causes"][-1] == "cancel_grace"
    waited = (
        "select extract(epoch from finished_at - cancel.created_at)::float8 from tasks join task_events as cancel on"
    )
    waited += " cancel.task_id = tasks.id and cancel.event_type::text = 'CANCEL_REQUESTED' where tasks.id = %s"
    assert fleet.one(waited, bad) >= 1.0

    # Its worker stops it, and has its slots again; whatever it said in the end changes nothing.
    fleet.ended(ids, 60)
    all_free = "select bool_and(free_sync = sync_slots and free_async = async_slots) from workers where state = 'alive'"
    until(lambda: fleet.one(all_free), 30)
    assert life(fleet, bad)["status"] == "CANCELLED"
    assert life(fleet, bad)["result"] is None
    kinds = fleet.rows("select event_type::text as kind from task_events where task_id = %s", bad)
    assert Counter(row["kind"] for row in kinds)["CANCELLED"] == 1
    unharmed(fleet, ids, history)


def test_row_38_one_killer_among_many_is_quarantined_alone(fleet: World, history: Path) -> None:
    number, staying = 1000 if FULL else 300, 2 * SLOTS - 10
    ids, happened = company(fleet, history, staying)
    tasks = [("tests.system.tasks:awork", "async", {"history": str(history), "seconds": 0.2})] * (number - staying - 1)
    place = len(tasks) // 3
    tasks.insert(place, ("tests.handlers:adie", "async", {}))
    others = send(fleet, tasks)
    killer = others.pop(place)
    until(lambda: life(fleet, killer)["causes"], 60)
    happened.touch()
    ids += others
    fleet.ended([killer, *ids], 100)

    row = life(fleet, killer)
    assert (row["status"], row["crash_count"], row["retry_count"], row["worker_deaths"]) == ("QUARANTINED", 2, 0, 0)
    assert [cause for cause in row["causes"] if cause not in FREE_OF_CHARGE] == ["crash", "crash"]
    verdict = unharmed(fleet, ids, history)
    assert verdict.statuses == Counter(COMPLETED=number - 1)
    assert verdict.causes["suspect"] >= staying - SLOTS, "they stayed, and its child had no more slots"


def test_row_37_the_key_is_the_same_over_retries_and_a_rescue(fleet: World, history: Path) -> None:
    retried = fleet.submit("key", 3, history=str(history))
    fleet.ended(retried)
    rescued = fleet.submit("key", history=str(history), failures=0, seconds=1.5)[0]
    fleet.running([rescued])
    until(lambda: any(line["task"] == rescued for line in read(history)))
    holder = fleet.holders([rescued])[rescued]
    member = next(member for member in fleet.fleet.living("worker") if member.pid == holder)
    fleet.fleet.kill(member)
    fleet.fleet.ready(fleet.fleet.replace(member))
    fleet.ended([rescued])

    verdict = verify(fleet, [*retried, rescued], history).clean()
    assert verdict.causes == Counter(returned=4, retry_later=6, worker_lost=1)
    starts = [line for line in read(history) if line["word"] == "start"]
    assert Counter(line["task"] for line in starts) == Counter(dict.fromkeys(retried, 3) | {rescued: 2})
    assert all(line["key"] == line["task"] for line in starts)


def test_row_37_a_doubled_reference_starts_a_task_once(fleet: World, history: Path) -> None:
    [worker] = fleet.rows("select sync_types from workers where state = 'alive' limit 1")
    key = list_key("sync", PriorityType.NORMAL, digest(worker["sync_types"]))
    host, port = fleet.servers.redis_low or ("", 0)
    with redis.Redis(host, port) as low:
        ids = send(fleet, neighbours(history, 60, 0))
        for round_ in range(3):  # in another order, to both workers, before and while and after they run
            for task in reversed(ids) if round_ % 2 else ids:
                low.rpush(key, bytes.fromhex(task.replace("-", "")))
        fleet.ended(ids)
        until(lambda: low.llen(key) == 0, 15)

    verdict = verify(fleet, ids, history).clean()
    assert (verdict.executions, verdict.events["STARTED"]) == (len(ids), len(ids))
    assert verdict.causes == Counter(returned=len(ids))
