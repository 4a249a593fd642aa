"""Races that have a name: two that meet at one row, and one that slept between its snapshot and its lock."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from core import clock, sql
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.ordering import PriorityType
from core.verbs import leading, running
from tests.machine import deeds
from tests.machine.calls import Call, Fate
from tests.machine.trail import Violation
from tests.machine.world import CAPPED, OWNER, PLAIN, TYPES, World
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from uuid import UUID

SLOW = 77  # the advisory lock that holds a statement up
# Whoever looks at workers through this view sleeps until the lock is free: after its snapshot, before its row locks.
FAILPOINT = f"""
create schema slow;
create function slow.down() returns boolean language sql volatile
    as $$ select true from (select pg_advisory_xact_lock_shared({SLOW})) as waited $$;
create view slow.workers as select * from public.workers where slow.down()
"""


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    made.reset()
    try:
        yield made
        made.check()
        deeds.heal_and_drain(made)
    finally:
        made.close()


def submitted(world: World, **more: Any) -> UUID:
    task = deeds.submission(world, **more)
    deeds.submit(world, [task])
    return task.id


def status(world: World, task: UUID) -> str:
    return str(world.check().tasks[task]["status"])


def test_a_cancel_that_waits_for_a_claim_reaches_the_running_task(world: World) -> None:
    task = submitted(world)
    late = deeds.claim(world, world.workers[0], [task], Fate.HOLD)
    deeds.cancel(world, [task])
    assert status(world, task) == "QUEUED"
    world.resolve(late, Fate.ACK)
    assert status(world, task) == "CANCELLING"


def test_a_result_that_waits_for_a_forced_cancel_is_refused(world: World) -> None:
    task = submitted(world)
    worker = world.workers[0]
    deeds.claim(world, worker, [task])
    cancel = deeds.cancel(world, [task], Fate.HOLD, force=True)
    deeds.finish(world, [deeds.ending(worker.held[task], "success")])
    world.resolve(cancel, Fate.ACK)
    assert status(world, task) == "CANCELLED"
    assert world.seen["fenced"] == 1


def test_a_cancel_that_waits_for_a_result_moves_nothing(world: World) -> None:
    task = submitted(world)
    worker = world.workers[0]
    deeds.claim(world, worker, [task])
    result = deeds.finish(world, [deeds.ending(worker.held[task], "success")], Fate.HOLD)
    cancel = deeds.cancel(world, [task], force=True)
    world.resolve(result, Fate.ACK)
    assert cancel.answer == []
    assert status(world, task) == "COMPLETED"


def test_a_report_sent_twice_at_once_counts_once_and_is_not_called_fenced(world: World) -> None:
    task = submitted(world)
    worker = world.workers[0]
    deeds.claim(world, worker, [task])
    ending = deeds.ending(worker.held[task], "success")
    first = deeds.finish(world, [ending], Fate.HOLD)
    second = deeds.finish(world, [ending])
    world.resolve(first, Fate.LOST)
    moved, mine, _, fenced = second.answer
    assert (moved, len(mine), fenced) == ([], 1, [])


def test_batches_in_opposite_order_do_not_lock_each_other_up(world: World) -> None:
    tasks = [submitted(world) for _ in range(6)]
    worker = world.workers[0]
    deeds.claim(world, worker, tasks)
    endings = [deeds.ending(worker.held[task], "success") for task in tasks]
    first = deeds.finish(world, endings[:3], Fate.HOLD)
    deeds.finish(world, [*reversed(endings)])
    deeds.cancel(world, tasks)
    world.resolve(first, Fate.ACK)
    assert {status(world, task) for task in tasks} == {"COMPLETED"}


def test_a_key_is_taken_once_by_two_who_hold_it_at_once(world: World) -> None:
    first = deeds.submit_keyed(world, "k", b"1", Fate.HOLD)
    second = deeds.submit_keyed(world, "k", b"1")
    world.resolve(first, Fate.UNDONE)
    assert second.answer[0].outcome is queue.KeyedOutcome.CREATED


def sleep_in(world: World, verb: Callable[[Any], Awaitable[Any]], meanwhile: Callable[[], Awaitable[Any]]) -> Any:
    """Have `verb` take its snapshot, then do `meanwhile`, then let it go on to its locks; return what it answers."""

    async def go() -> Any:
        await world.observer.execute(FAILPOINT)
        async with Database(world.url, name="slow", search_path="slow,public") as db:
            sleeper = await db.own_connection()
            await world.observer.execute(f"select pg_advisory_lock({SLOW})")
            asleep = asyncio.ensure_future(verb(sleeper))
            blocked = False
            while not blocked:
                blocked = await world.observer.fetchval(
                    "select cardinality(pg_blocking_pids($1)) > 0", sleeper.get_server_pid()
                )
            await meanwhile()
            await world.observer.execute(f"select pg_advisory_unlock({SLOW})")
            answer = await asleep
            await sleeper.close()
            return answer

    return world.run(go())


def rescued_and_claimed_meanwhile(world: World) -> None:
    task = submitted(world)
    first, second, _ = world.workers
    deeds.claim(world, first, [task])
    deeds.bury(world, first)

    async def meanwhile() -> None:
        await queue.rescue(world.observer)
        found = await queue.claim(
            world.observer, [task], worker=second.id, secret=SECRET, claim=world.name(), types=TYPES
        )
        second.held.update({item.id: item for item in found})

    sleep_in(world, queue.rescue, meanwhile)
    assert task in second.held
    world.check()


def test_a_rescue_that_slept_takes_nothing_from_a_worker_that_lives(world: World) -> None:
    rescued_and_claimed_meanwhile(world)
    assert world.look().tasks[next(iter(world.known))]["status"] == "IN_PROGRESS"


def test_without_its_second_look_at_the_holder_it_would(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    second_look = " and tasks.worker_id = orphans.worker_id"
    assert second_look in sql.statement("rescue")
    monkeypatch.setattr(leading, "statement", lambda name: sql.statement(name).replace(second_look, ""))
    world = World(database_url)
    try:
        world.reset()
        with pytest.raises(Violation, match="I8 rescued from the living"):
            rescued_and_claimed_meanwhile(world)
    finally:
        world.close()


def test_a_rescue_that_slept_sees_the_cancel_that_came_meanwhile(world: World) -> None:
    task = submitted(world)
    worker = world.workers[0]
    deeds.claim(world, worker, [task])
    deeds.bury(world, worker)

    async def meanwhile() -> None:
        await queue.cancel(world.observer, [task], owner_id=OWNER, by="owner")

    sleep_in(world, queue.rescue, meanwhile)
    assert status(world, task) == "CANCELLED"


def test_a_claim_under_way_while_a_cap_is_set_counts_at_once(world: World) -> None:
    deeds.configure(world, most=0, per_key=1)
    running, waiting = submitted(world, queue=CAPPED), submitted(world, queue=CAPPED)
    late = deeds.claim(world, world.workers[0], [running], Fate.HOLD)
    deeds.configure(world, most=1, per_key=1)
    world.resolve(late, Fate.ACK)
    deeds.lead(world, 0, "gate")
    assert (status(world, running), status(world, waiting)) == ("IN_PROGRESS", "PENDING")


def test_a_gate_that_counted_under_the_old_cap_commits_before_the_new_one(world: World) -> None:
    for _ in range(2):
        submitted(world, queue=CAPPED)
    gate = deeds.lead(world, 0, "gate", Fate.HOLD)
    deeds.configure(world, most=1, per_key=1)
    assert world.check().queues[CAPPED]["max_concurrent"] == 2
    world.resolve(gate, Fate.ACK)
    assert world.check().queues[CAPPED]["max_concurrent"] == 1


def test_limits_that_waited_for_the_gate_see_what_was_committed_meanwhile(world: World) -> None:
    world.run(queue.set_limits(world.observer, CAPPED, max_concurrent=0, max_per_key=1))
    gate = deeds.lead(world, 0, "gate", Fate.HOLD)
    limits = deeds.configure(world, most=1, per_key=1)
    late = submitted(world, queue=CAPPED)
    assert status(world, late) == "QUEUED"
    world.resolve(gate, Fate.ACK)
    assert limits.done
    assert status(world, late) == "PENDING"


def test_a_key_whose_tasks_cannot_go_yet_takes_no_room_from_others(world: World) -> None:
    later = clock.now() + timedelta(hours=1)
    submitted(world, queue=CAPPED, concurrency_key="a", scheduled_at=later)
    submitted(world, queue=CAPPED, concurrency_key="b", type="nobody:knows")
    ready = submitted(world, queue=CAPPED, concurrency_key="c")
    keys = [GateKey(queue=CAPPED, owner_id=OWNER, key=key) for key in "abc"]
    world.run(queue.set_limits(world.observer, CAPPED, max_concurrent=1, max_per_key=1))
    moved = world.run(queue.promote_gated(world.observer, keys, types=TYPES))
    assert [row.id for row in moved] == [ready]
    world.run(queue.cancel(world.observer, [*world.known], owner_id=OWNER, by="owner"))


def test_the_room_of_a_queue_goes_to_the_most_urgent_of_all_keys(world: World) -> None:
    submitted(world, queue=CAPPED, concurrency_key="a", priority=PriorityType.LOW)
    urgent = submitted(world, queue=CAPPED, concurrency_key="b", priority=PriorityType.HIGH)
    keys = [GateKey(queue=CAPPED, owner_id=OWNER, key=key) for key in "ab"]
    world.run(queue.set_limits(world.observer, CAPPED, max_concurrent=1, max_per_key=1))
    moved = world.run(queue.promote_gated(world.observer, keys, types=TYPES))
    assert [row.id for row in moved] == [urgent]
    world.run(queue.cancel(world.observer, [*world.known], owner_id=OWNER, by="owner"))


def test_a_takeover_waits_for_the_open_transaction_of_the_old_leader_and_shuts_out_the_next(world: World) -> None:
    submitted(world, queue=PLAIN)
    slow = deeds.lead(world, 0, "gate", Fate.HOLD)
    deeds.take_over(world, 1)
    assert world.check().epoch == 1
    deeds.lead(world, 0, "rescue")  # it waits behind the takeover, and reads the epoch after the wait
    world.resolve(slow, Fate.ACK)
    assert world.check().epoch == 2
    assert world.seen["deposed"] == 1


def test_a_cordon_waits_for_a_claim_and_a_beat_does_not(world: World) -> None:
    worker = world.workers[0]
    late = deeds.claim(world, worker, [submitted(world)], Fate.HOLD)
    world.run(queue.beat(world.observer, worker.id, secret=SECRET, free_sync=1, free_async=1))
    cordon = world.step(Call("cordon", lambda tx: queue.cordon(tx, [worker.id]), Fate.ACK))
    assert not cordon.done
    world.resolve(late, Fate.ACK)
    assert cordon.answer == [worker.id]
    assert worker.held


def claimed_and_cordoned_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, body: Callable[[str], str] = sql.statement
) -> list[queue.Claimed]:
    # The body of the function and not the function, whose search_path leads past the view that sleeps.
    monkeypatch.setattr(running, "call", body)
    worker, task = world.workers[0], submitted(world)

    async def claim(tx: Any) -> list[queue.Claimed]:
        return await queue.claim(tx, [task], worker=worker.id, secret=SECRET, claim=world.name(), types=TYPES)

    async def meanwhile() -> None:
        await queue.beat(world.observer, worker.id, secret=SECRET, free_sync=1, free_async=1)
        assert await queue.cordon(world.observer, [worker.id])

    return list(sleep_in(world, claim, meanwhile))


def test_a_claim_that_slept_takes_nothing_once_its_worker_is_cordoned(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claimed_and_cordoned_meanwhile(world, monkeypatch) == []


def test_without_the_lock_on_its_worker_it_would(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert " for key share" in sql.statement("claim")
    assert claimed_and_cordoned_meanwhile(
        world, monkeypatch, lambda name: sql.statement(name).replace(" for key share", "")
    )
