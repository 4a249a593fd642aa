"""What tests of leaders share: a record of every write of theirs, work that needs one, and ways to stop one.

What a leader writes is recorded by triggers, with the epoch that led when it was committed: a write under an old one
would be a row of `leader_writes` whose epochs differ.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK
from tests.signals import until
from tests.system.proxy import Toxic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.dev.fleet import Member
    from tests.system.world import World

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
select 1 from pg_stat_activity
where datname = current_database() and application_name = %s and wait_event_type = 'Lock' and wait_event = 'advisory'
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


def record(world: World) -> World:
    """Record from now on whatever a leader writes to tasks, events and workers."""
    world.rows(RECORDER)
    for table in ("tasks", "task_events", "workers"):
        world.rows(TRIGGER.format(table=table))
    return world


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


def successor(world: World, epoch: int, *candidates: Member) -> Member:
    """Wait until one of them leads under the next epoch; which one. Each watches on its own clock: any may be first."""
    found = until(lambda: leader if (leader := world.fleet.leader()) in candidates else None, 15.0, every=0.05)
    assert leads(world, found) == epoch + 1
    return found


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


def quick(world: World, history: Path) -> list[str]:
    """Tasks of one attempt each: some need a leader (their time comes, or they have a key), one expires besides."""
    said = {"history": str(history), "seconds": 0.05}
    ids = world.submit_each("work", [said] * 4)
    ids += world.submit_each("work", [said] * 4, delay=0.3)
    ids += world.submit_each("awork", [said] * 4, concurrency_key=KEY)
    world.submit_each("work", [said], queue="nowhere", expires_at=0.5)
    return ids


def orphans(world: World, history: Path) -> list[str]:
    """Tasks of a worker that was killed."""
    [worker] = world.workers(TASKFLOW_WORKER_QUEUES="orphans")
    killed = history.with_suffix(".killed")
    ids = world.submit_each("abeside", [{"history": str(history), "until": str(killed)}] * 3, queue="orphans")
    world.running(ids)
    world.fleet.kill(worker)
    killed.touch()
    world.workers(TASKFLOW_WORKER_QUEUES="orphans")
    return ids
