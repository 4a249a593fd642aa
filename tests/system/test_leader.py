"""Leaders die and pause: row 5 of reliability.md §1, and a second scheduler that takes over.

An audit in the database says under which epoch every row was written, and by whom.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.signals import until
from tests.system.conftest import FULL
from tests.system.history import verify
from tests.system.proxy import Proxy, Toxic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.dev.fleet import Member
    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.xdist_group("leader"),
    pytest.mark.timeout(3600 if FULL else 120),
]

KILLS = 15 if FULL else 1  # every 20 s for 5 minutes
TAKEN_OVER = 15.0  # seconds, for a leader that stopped inside a transaction
RESUMED = 10.0  # seconds from the death of a leader to the first start of what only a leader can let through

# The application's name carries the epoch of who writes; the row beside it, the epoch that is in force.
AUDIT = """
create table audit (writer text, epoch bigint, what text);
create function audit() returns trigger language plpgsql as $$
begin
    insert into audit select current_setting('application_name'), (select max(epoch) from leader), TG_TABLE_NAME
    where current_setting('application_name') like 'tf-leader/%';
    return null;
end $$;
create trigger audit after insert or update or delete on tasks for each row execute function audit();
create trigger audit after insert on task_events for each row execute function audit();
"""
STALE = "select count(*) from audit where writer <> 'tf-leader/' || epoch"

# Where the leader stops, as reliability.md has them: a statement, and what the proxy does there.
FEED, DUE, RESCUE, EXPIRE = (
    "-- Read QUEUED rows",
    "-- PENDING tasks whose",
    "-- Take tasks back",
    "-- Waiting tasks whose",
)
POINTS = {
    "before_commit": (DUE, Toxic.HOLD, True),
    "between_commit_and_hint": (FEED, Toxic.CALL_AFTER, True),
    "in_rescue": (RESCUE, Toxic.HOLD, True),
    "before_select": (FEED, Toxic.HOLD, False),
    "after_select": (DUE, Toxic.CALL_AFTER, False),
    "in_expiry": (EXPIRE, Toxic.HOLD, True),
}
QUICK = ("before_commit", "between_commit_and_hint", "in_rescue")


@pytest.fixture(scope="module")
def led(module_world: World) -> Iterator[tuple[World, Proxy]]:
    """An API, two workers, and two schedulers behind a proxy."""
    module_world.rows(AUDIT)
    with Proxy(module_world.database_url) as proxy:
        module_world.api()
        module_world.schedulers(2, DATABASE_URL=proxy.url)
        module_world.workers(2)
        yield module_world, proxy
        module_world.fleet.stop(*module_world.fleet.living())


@pytest.fixture(autouse=True)
def _nothing_held(led: tuple[World, Proxy]) -> Iterator[None]:
    """A test that fails must not leave a stopped leader to the next one."""
    yield
    world, proxy = led
    proxy.disarm()
    proxy.release()
    for scheduler in world.fleet.living("scheduler"):
        scheduler.resume()


@pytest.mark.parametrize("point", POINTS if FULL else QUICK)
def test_row_05_leader_stopped_writes_nothing_after_a_takeover(
    led: tuple[World, Proxy], history: Path, point: str
) -> None:
    world, proxy = led
    leader = until(world.fleet.leader, 20)
    epoch = _epoch(world)
    orphans = _orphans(world, history) if point == "in_rescue" else []
    statement, toxic, at_commit = POINTS[point]
    armed = proxy.arm(statement, toxic, call=leader.pause, at_commit=at_commit)
    ids = [*orphans, *_mixed(world, history)]
    until(lambda: armed.fired, 20)
    stopped = time.monotonic()
    successor = until(lambda: _other(world, leader), 2 * TAKEN_OVER)
    assert time.monotonic() - stopped < TAKEN_OVER
    assert _epoch(world) == epoch + 1
    leader.resume()
    proxy.release()
    until(lambda: not leader.terms()[-1].now, 20)  # it has noticed
    ids += _mixed(world, history)
    world.ended(ids, 40)
    verdict = verify(world, ids, history).clean()
    assert len(ids) <= verdict.executions <= len(ids) + verdict.events["RESCUED"]  # nothing twice for the leader's sake
    assert (verdict.charged, verdict.events["RESCUED"]) == (0, len(orphans))
    assert (world.fleet.leader(), _epoch(world)) == (successor, epoch + 1)
    assert world.one("select count(*) from audit") > 0
    assert world.one(STALE) == 0


def _epoch(world: World) -> int:
    return int(world.one("select max(epoch) from leader"))


def _other(world: World, former: Member) -> Member | None:
    """Who leads, when it is another one."""
    leader = world.fleet.leader()
    return leader if leader is not former else None


def _mixed(world: World, history: Path) -> list[str]:
    """Tasks that need a leader (their time comes, or they have a key), and some that do not."""
    said = {"history": str(history), "seconds": 0.05}
    ids = world.submit_each("work", [said] * 4)
    ids += world.submit_each("work", [said] * 4, delay=0.3)
    ids += world.submit_each("awork", [said] * 4, concurrency_key="one at a time")
    world.submit_each("work", [said], queue="nowhere", expires_at=0.5)
    return ids


def _orphans(world: World, history: Path) -> list[str]:
    """Tasks of a worker that was killed."""
    [worker] = world.workers(TASKFLOW_WORKER_QUEUES="orphans")
    ids = world.submit_each("awork", [{"history": str(history), "seconds": 1.0}] * 3, queue="orphans")
    world.running(ids)
    world.fleet.kill(worker)
    world.workers(TASKFLOW_WORKER_QUEUES="orphans")
    return ids


def test_a_killed_leader_is_succeeded_within_ten_seconds(led: tuple[World, Proxy], history: Path) -> None:
    world, _ = led
    for turn in range(KILLS):
        notes = history.with_name(f"{history.name}-{turn}")
        leader = until(world.fleet.leader, 20)
        epoch = _epoch(world)
        world.fleet.kill(leader)
        killed = world.one("select clock_timestamp()")
        world.fleet.ready(world.fleet.replace(leader))
        ids = _mixed(world, notes)
        world.ended(ids, 30)
        verdict = verify(world, ids, notes).clean()
        assert (verdict.executions, verdict.events["RESCUED"]) == (len(ids), 0)
        assert _other(world, leader) is not None
        assert _epoch(world) == epoch + 1
        first = world.one(
            "select min(started_at) from task_events where event_type = 'STARTED' and task_id = any(%s::uuid[])",
            ids[4:],
        )
        assert (first - killed).total_seconds() < RESUMED
    assert world.one(STALE) == 0


def test_a_leader_that_is_told_to_leave_hands_over_at_once(led: tuple[World, Proxy], history: Path) -> None:
    world, _ = led
    leader = until(world.fleet.leader, 20)
    began = time.monotonic()
    assert world.fleet.stop(leader) == [0]
    until(lambda: _other(world, leader), 10)
    assert time.monotonic() - began < 5
    ids = _mixed(world, history)
    world.ended(ids, 20)
    verify(world, ids, history).clean()
