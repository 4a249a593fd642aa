"""The leader is stopped, killed and goes without Redis: one epoch at a time writes, and nothing is lost or doubled.

Rows 4, 5 and 6 of reliability.md §1. What a leader writes is recorded by triggers, with the epoch that led when it
was committed: a write under an old one would be a row of `leader_writes` whose epochs differ.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK
from tests.signals import until
from tests.system.clients import Clients
from tests.system.conftest import FULL
from tests.system.history import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.dev.fleet import Member
    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.xdist_group(__name__),
    pytest.mark.timeout(1800 if FULL else 180),
]

ROUNDS = 20 if FULL else 3
KEY = "one at a time"
STEPPED_DOWN = {"deposed, standing by", "not leading, standing by"}
EPOCH = "select epoch from leader where name = 'scheduler'"
# Deferred to the commit, so that `epoch_then` is what PostgreSQL says at the last moment a write can be stopped at.
RECORDER = """
create table leader_writes (
    epoch bigint, epoch_then bigint, xid xid8, relation text, at timestamptz default clock_timestamp(),
    primary key (xid, relation)
);
create function record_leader_write() returns trigger language plpgsql as $$
begin
    insert into leader_writes (epoch, epoch_then, xid, relation)
    values (split_part(current_setting('application_name'), '/', 2)::bigint,
            (select epoch from leader where name = 'scheduler'), pg_current_xact_id(), tg_argv[0])
    on conflict do nothing;
    return null;
end $$;
"""
TRIGGER = """
create constraint trigger leader_writes after insert or update or delete on {table} deferrable initially deferred
for each row when (current_setting('application_name') like 'tf-leader/%')
execute function record_leader_write('{table}')
"""
WRITES = "select count(*) from leader_writes where epoch = %s"
STALE = "select * from leader_writes where epoch <> epoch_then"
IN_THE_GATE = """
select 1 from pg_stat_activity where application_name = %s and wait_event_type = 'Lock' and wait_event = 'advisory'
"""
INTERVALS = """
select begun.created_at as begun, min(over.created_at) as over
from tasks
join task_events as begun on begun.task_id = tasks.id and begun.event_type::text = 'STARTED'
left join task_events as over on over.task_id = tasks.id and over.attempt = begun.attempt and over.claim = begun.claim
    and over.event_type::text <> 'STARTED'
where tasks.concurrency_key = %s and tasks.id = any(%s::uuid[])
group by tasks.id, begun.attempt, begun.created_at
order by begun.created_at
"""
STARTS_UNDER = """
select min(event.created_at) - %s::timestamptz as waited
from tasks join task_events as event on event.task_id = tasks.id
where tasks.concurrency_key <> '' and event.event_type::text = 'STARTED' and event.created_at > %s
    and tasks.id = any(%s::uuid[])
"""


@pytest.fixture(scope="module")
def recorded(module_world: World) -> World:
    """The module's world, in which whatever a leader writes to tasks, events and workers is recorded."""
    module_world.rows(RECORDER)
    for table in ("tasks", "task_events", "workers"):
        module_world.rows(TRIGGER.format(table=table))
    return module_world


@pytest.fixture(scope="module")
def fleet(recorded: World) -> World:
    """An API, two workers and two schedulers, one of which leads."""
    recorded.api()
    members = recorded.workers(2)
    assert all(member.alive() for member in members)
    recorded.schedulers(2)
    return recorded


def mixed(world: World, history: Path, *, key: str = KEY, number: int = 4, spread: float = 8.0) -> list[str]:
    """Submit what cannot end without a leader: of one key, delayed, to be retried, and all of it at once.

    The delays end evenly over `spread` seconds: while somebody leads, while nobody does, and after.
    """
    payload = {"history": str(history)}
    ids = world.submit_each("work", [payload | {"seconds": 0.02}] * number, concurrency_key=key)
    ids += world.submit_each("fails", [payload] * number)
    ids += world.submit_each("fails", [payload] * (number // 2), concurrency_key=key)
    for turn in range(number):
        ids += world.submit_each("awork", [payload], delay=spread * (turn + 1) / number)
        ids += world.submit_each("work", [payload], delay=spread * (turn + 0.5) / number, concurrency_key=key)
    return ids


def capped(world: World, ids: list[str], key: str = KEY) -> int:
    """Check that no two executions of the key overlapped, by the events; how many executions there were."""
    found = world.rows(INTERVALS, key, ids)
    assert all(one["over"] is not None for one in found)
    overlaps = [(first, then) for first, then in pairwise(found) if then["begun"] < first["over"]]
    assert overlaps == []
    return len(found)


def stand_by(world: World, leader: Member) -> Member:
    """The one that does not lead."""
    [other] = [member for member in world.fleet.living("scheduler") if member is not leader]
    return other


def leads(world: World, member: Member, within: float = 15.0) -> int:
    """Wait until it leads, by its own words and by PostgreSQL; its epoch."""
    until(lambda: world.fleet.leader() is member and member.terms()[-1].epoch == world.one(EPOCH), within, every=0.05)
    return int(world.one(EPOCH))


def down(member: Member) -> int:
    """How often it has stepped down."""
    return sum(line.get("event") in STEPPED_DOWN for line in member.lines())


@contextmanager
def held_in_the_gate(world: World, epoch: int) -> Iterator[None]:
    """In the block, the leader is inside a transaction: it has seen its epoch, and waits for the gate's lock."""
    world.rows("begin")
    try:
        world.rows("select pg_advisory_xact_lock(%s, %s)", ADVISORY_CLASS, GATE_LOCK)
        until(lambda: world.rows(IN_THE_GATE, f"tf-leader/{epoch}"), 15, every=0.005)
        yield
    finally:
        world.rows("commit")


def pause_it(world: World, leader: Member, epoch: int, *, inside: bool) -> None:
    """SIGSTOP, anywhere or inside a transaction that goes no further and holds the leader's lock."""
    if inside:
        with held_in_the_gate(world, epoch):
            leader.pause()
    else:
        leader.pause()


# ── tests ───────────────────────────────────────────────────────────────────────────────────────────────


def test_row_05_stopped_leader_writes_nothing(fleet: World, history: Path) -> None:
    ids: list[str] = []
    told: list[Any] = []
    body = {"type": "tests.system.tasks:awork", "queue": "async", "payload": {"history": str(history)}}
    with Clients(fleet, 2, body, pace=0.1) as clients:
        for turn in range(ROUNDS):
            leader = until(fleet.fleet.leader, 20)
            other, epoch = stand_by(fleet, leader), leads(fleet, leader)
            before = down(leader)
            ids += mixed(fleet, history)
            until(lambda epoch=epoch: fleet.one(WRITES, epoch) > 0, 10)  # type: ignore[misc]
            pause_it(fleet, leader, epoch, inside=turn % 3 == 1)
            stopped = time.monotonic()
            try:
                next_epoch = leads(fleet, other)
                took = time.monotonic() - stopped
                until(lambda epoch=next_epoch: fleet.one(WRITES, epoch) > 0, 10)  # type: ignore[misc]
                written = fleet.one(WRITES, epoch)
                assert next_epoch == epoch + 1
                assert took <= 15
            finally:
                leader.resume()
            until(lambda: down(leader) > before, 10, every=0.05)  # noqa: B023 - it is called here only
            clients.more(5)
            assert (fleet.one(WRITES, epoch), fleet.one(EPOCH), fleet.fleet.leader()) == (written, next_epoch, other)
            assert leader.alive(), "stepping down is not leaving"
            told.append((epoch, written, round(took, 1)))
    clients.clean()
    fleet.ended([*ids, *clients.ids], 40)
    verdict = verify(fleet, [*ids, *clients.ids], history).clean()
    assert fleet.rows(STALE) == []
    assert verdict.events["RETRIED"] >= 6 * ROUNDS
    executions = capped(fleet, ids)
    assert executions >= 12 * ROUNDS
    print(f"row 5: (epoch, its writes, seconds to the next) {told}, {executions} of the key, {dict(verdict.events)}")


def test_a_killed_leader_is_replaced(fleet: World, history: Path) -> None:
    body = {"type": "tests.system.tasks:awork", "queue": "async", "payload": {"history": str(history)}}
    leader = until(fleet.fleet.leader, 20)
    other, epoch = stand_by(fleet, leader), leads(fleet, leader)
    with Clients(fleet, 2, body, pace=0.1) as clients:
        clients.more(10)
        fleet.fleet.kill(leader)
        killed = fleet.one("select clock_timestamp()")
        gated = mixed(fleet, history, key="after a death")  # only a leader lets these through
        new = fleet.fleet.replace(leader)
        waited = until(lambda: fleet.rows(STARTS_UNDER, killed, killed, gated)[0]["waited"], 20, every=0.02)
        assert leads(fleet, other) == epoch + 1
        fleet.fleet.ready(new)
        clients.more(10)
    clients.clean()
    fleet.ended([*gated, *clients.ids], 40)
    verify(fleet, [*gated, *clients.ids], history).clean()
    capped(fleet, gated, "after a death")
    assert waited.total_seconds() <= 10
    assert fleet.rows(STALE) == []
    assert (new.alive(), new.terms(), fleet.fleet.leader()) == (True, [], other)
    print(f"row 4: starts that need a leader after {waited.total_seconds():.2f} s")


def test_redis_off_runs_on_postgresql_alone(recorded: World, history: Path) -> None:
    recorded.stop(*recorded.fleet.living())
    off = {"TASKFLOW_REDIS": "off"}
    recorded.client.close()
    recorded.api(**off)
    recorded.workers(2, **off)
    recorded.schedulers(1, **off)
    ids = mixed(recorded, history, key="without Redis", spread=3.0)
    ids += recorded.submit("awork", 20, history=str(history)) + recorded.submit("snoozes", 4, history=str(history))
    assert set(recorded.ended(ids, 40).values()) == {"COMPLETED"}
    verdict = verify(recorded, ids, history).clean()
    assert capped(recorded, ids, "without Redis") >= 12
    assert verdict.events["RETRIED"] >= 6
    assert recorded.rows(STALE) == []
    print(f"Redis off: {dict(verdict.events)}")
