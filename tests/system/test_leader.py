"""Leaders stop, die, leave and go without Redis: one epoch at a time writes, and nothing is lost or doubled.

Rows 4, 5 and 6 of reliability.md §1; see leaders.py for what is recorded of a leader.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.signals import until
from tests.system.clients import Clients
from tests.system.conftest import FULL
from tests.system.history import verify
from tests.system.leaders import (
    EPOCH,
    POINTS,
    STALE,
    STARTS_UNDER,
    WRITES,
    capped,
    down,
    leads,
    mixed,
    orphans,
    pause_it,
    quick,
    record,
    stand_by,
    successor,
)
from tests.system.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(3600 if FULL else 180),
]

ROUNDS = 20 if FULL else 3
KILLS = 15 if FULL else 1  # every 20 s for 5 minutes
QUICK = ("before_commit", "between_commit_and_hint", "in_rescue")
TAKEN_OVER = 15.0  # seconds, for a leader that stopped inside a transaction
RESUMED = 10.0  # seconds from the death of a leader to the first start of what only a leader can let through


@pytest.fixture(scope="module")
def led(module_world: World) -> Iterator[tuple[World, Proxy]]:
    """An API, two workers, and two schedulers behind a proxy, one of which leads."""
    record(module_world)
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


def test_row_05_stopped_leader_writes_nothing(led: tuple[World, Proxy], history: Path) -> None:
    fleet, _ = led
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


@pytest.mark.parametrize("point", POINTS if FULL else QUICK)
def test_row_05_leader_stopped_at_a_statement_writes_nothing(
    led: tuple[World, Proxy], history: Path, point: str
) -> None:
    world, proxy = led
    leader = until(world.fleet.leader, 20)
    other, epoch = stand_by(world, leader), leads(world, leader)
    before = down(leader)
    lost = orphans(world, history) if point == "in_rescue" else []
    statement, toxic, at_commit = POINTS[point]
    armed = proxy.arm(statement, toxic, call=leader.pause, at_commit=at_commit)
    ids = [*lost, *quick(world, history)]
    until(lambda: armed.fired, 20)
    stopped = time.monotonic()
    assert leads(world, other, 2 * TAKEN_OVER) == epoch + 1
    assert time.monotonic() - stopped < TAKEN_OVER
    leader.resume()
    proxy.release()
    until(lambda: down(leader) > before, 20, every=0.05)  # it has noticed
    ids += quick(world, history)
    world.ended(ids, 40)
    verdict = verify(world, ids, history).clean()
    assert len(ids) <= verdict.executions <= len(ids) + verdict.events["RESCUED"]  # nothing twice for the leader's sake
    assert (verdict.charged, verdict.events["RESCUED"]) == (0, len(lost))
    assert (world.fleet.leader(), world.one(EPOCH)) == (other, epoch + 1)
    assert world.one(WRITES, epoch + 1) > 0
    assert world.rows(STALE) == []


def test_row_04_a_killed_leader_is_succeeded_within_ten_seconds(led: tuple[World, Proxy], history: Path) -> None:
    world, _ = led
    for turn in range(KILLS):
        notes, key = history.with_name(f"{history.name}-{turn}"), f"after death {turn}"
        body = {"type": "tests.system.tasks:awork", "queue": "async", "payload": {"history": str(notes)}}
        leader = until(world.fleet.leader, 20)
        other, epoch = stand_by(world, leader), leads(world, leader)
        with Clients(world, 2, body, pace=0.1) as clients:
            clients.more(10)
            world.fleet.kill(leader)
            killed = world.one("select clock_timestamp()")
            gated = mixed(world, notes, key=key)  # only a leader lets these through
            new = world.fleet.replace(leader)
            waited = until(lambda: world.rows(STARTS_UNDER, killed, killed, gated)[0]["waited"], 20, every=0.02)  # noqa: B023 - it is called here only
            first = successor(world, epoch, other, new)
            world.fleet.ready(new)
            clients.more(10)
        clients.clean()
        world.ended([*gated, *clients.ids], 40)
        assert verify(world, [*gated, *clients.ids], notes).clean().events["RESCUED"] == 0
        capped(world, gated, key)
        print(f"row 4: {waited.total_seconds():.2f} s from the death to the first start")
        assert waited.total_seconds() <= RESUMED
        assert world.rows(STALE) == []
        assert (new.alive(), other.alive(), world.fleet.leader()) == (True, True, first)
        assert [term.epoch for one in (other, new) for term in one.terms() if term.epoch > epoch] == [epoch + 1]


def test_a_leader_that_is_told_to_leave_hands_over_at_once(led: tuple[World, Proxy], history: Path) -> None:
    world, _ = led
    leader = until(world.fleet.leader, 20)
    other = stand_by(world, leader)
    began = time.monotonic()
    assert world.fleet.stop(leader) == [0]
    leads(world, other, 10)
    assert time.monotonic() - began < 5
    ids = quick(world, history)
    world.ended(ids, 20)
    verify(world, ids, history).clean()


def test_redis_off_runs_on_postgresql_alone(led: tuple[World, Proxy], history: Path) -> None:
    recorded, _ = led
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
