"""A proof that cannot fail proves nothing: each mutation of the core below must be found.

The histories are directed, so that each is found every time; what decides is `World.check` and `heal_and_drain`, the
very invariants of the state machine. Unmutated, the same histories keep every promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from core import queue_manager as queue
from core import sql
from core.domain.floors import SequenceLook, Settled
from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Submitted
from core.urls import plain
from tests.machine import deeds, mutants
from tests.machine.calls import Fate
from tests.machine.trail import Violation
from tests.machine.world import CAPPED, World
from tests.signals import until

if TYPE_CHECKING:
    from uuid import UUID

Apply = Callable[[World, pytest.MonkeyPatch], None]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    made.reset()
    try:
        yield made
    finally:
        made.close()


def rewritten(world: World, monkeypatch: pytest.MonkeyPatch, name: str, *changes: tuple[str, str]) -> None:
    """Have the verbs send another text for a statement, or call a function made of it."""
    text = mutants.changed(name, *changes)
    if name in sql.WORKER_FUNCTIONS:
        world.run(mutants.made(world.observer, name, text))
    mutants.sent(monkeypatch, name, text)


# -- histories -----------------------------------------------------------------------------------------------------


def a_claim_undone_is_reported(world: World) -> None:
    """A worker saw the rows of its claim, not that the COMMIT never came; another runs the task as the same attempt."""
    [task] = submitted(world)
    first, second, _ = world.workers
    deeds.claim(world, first, [task], Fate.UNDONE)
    deeds.claim(world, second, [task])
    assert first.ghosts[0].attempt == second.held[task].attempt == 1
    deeds.finish(world, [deeds.ending(first.ghosts[0], "success")])
    world.check()
    deeds.finish(world, [deeds.ending(second.held[task], "success")])


def a_claim_commits_after_the_death_of_its_worker(world: World) -> None:
    [task] = submitted(world)
    worker = world.workers[0]
    late = deeds.claim(world, worker, [task], Fate.HOLD)
    deeds.bury(world, worker)
    deeds.lead(world, 0, "rescue")
    world.check()
    world.resolve(late, Fate.ACK)


def a_report_of_a_retried_attempt_is_sent_again(world: World) -> None:
    [task] = submitted(world)
    first, second, _ = world.workers
    deeds.claim(world, first, [task])
    ending = deeds.ending(first.held[task], "error")
    deeds.finish(world, [ending], Fate.LOST)
    world.check()
    world.run(world.pass_time())
    deeds.lead(world, 0, "promote_due")
    deeds.claim(world, second, [task])
    world.check()
    deeds.finish(world, [ending])
    world.check()
    deeds.finish(world, [deeds.ending(second.held[task], "success")])


def a_keyed_request_dies_before_its_commit(world: World) -> None:
    deeds.submit_keyed(world, "k", b"body", Fate.UNDONE)
    world.check()
    deeds.submit_keyed(world, *world.dropped.pop())


def an_ex_leader_comes_back_with_the_gate(world: World) -> None:
    submitted(world, queue=CAPPED, concurrency_key="k1")
    deeds.take_over(world, 1)
    deeds.lead(world, 0, "gate")
    world.check()


def two_gates_meet_before_their_commits(world: World) -> None:
    """Cap 1; the first gate has promoted a task and is stopped at its failpoint, just before COMMIT.

    Then one comes that is more urgent, so that the second gate does not look at the row that the first one holds.
    """
    submitted(world, concurrency_key="k1")
    stopped = deeds.lead(world, 0, "gate", Fate.HOLD)
    assert len(stopped.answer) == 1
    submitted(world, concurrency_key="k1", priority=PriorityType.HIGH)
    deeds.lead(world, 0, "gate")
    world.check()
    world.resolve(stopped, Fate.ACK)


def a_cap_comes_back_while_a_gate_is_under_way(world: World) -> None:
    """No cap; the gate has let three through and is stopped before its COMMIT, and the cap of one waits for that."""
    for _ in range(3):
        submitted(world, queue=CAPPED)
    deeds.configure(world, most=0, per_key=1)
    world.check()
    stopped = deeds.lead(world, 0, "gate", Fate.HOLD)
    assert len(stopped.answer) == 3
    deeds.configure(world, most=1, per_key=1)
    world.check()
    world.resolve(stopped, Fate.ACK)


def a_submit_commits_after_a_floor_was_raised(world: World) -> None:
    """It drew its place in the order before the tasks that were claimed meanwhile."""
    task = deeds.submission(world)
    late = deeds.submit(world, [task], Fate.HOLD)
    deeds.claim(world, world.workers[0], submitted(world))
    for _ in range(3):
        world.check()
    deeds.raise_floors(world, 0)
    world.resolve(late, Fate.ACK)


def a_waiting_task_becomes_urgent_above_a_floor(world: World) -> None:
    """What was urgent before is claimed, and younger than the one that becomes urgent."""
    waiting = submitted(world, priority=PriorityType.LOW)
    deeds.claim(world, world.workers[0], submitted(world, priority=PriorityType.HIGH))
    settle(world)
    deeds.raise_floors(world, 0)
    deeds.reprioritize(world, waiting, PriorityType.HIGH)


def settle(world: World) -> None:
    """Look until all that was drawn so far is settled: another test's transaction may be open."""
    drawn = world.run(queue.look_at_sequence(world.observer)).last

    def settled() -> bool:
        world.check()
        return world.settled.seq >= drawn

    until(settled, 60)


def submitted(world: World, **more: Any) -> list[UUID]:
    task = deeds.submission(world, **more)
    deeds.submit(world, [task])
    return [task.id]


# -- mutations -----------------------------------------------------------------------------------------------------


def finish_without_the_claim(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(world, monkeypatch, "finish", (" and tasks.claim = given.claim", ""))


def succeed_without_the_claim(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(world, monkeypatch, "succeed", (" and tasks.claim = given.claim", ""))


def rescue_at_the_moment_of_death_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mark_dead, rescue = queue.mark_dead, queue.rescue

    async def and_rescue(tx: Any, worker: Any, beat_seq: int) -> bool:
        dead = await mark_dead(tx, worker, beat_seq)
        if dead:
            every = "from workers where workers.state = 'dead'"
            rewritten(world, monkeypatch, "rescue", (every, f"from workers where workers.id = '{worker}'"))
            await rescue(tx, strays=False)
        return dead

    async def never(_tx: Any, _limit: int = 500, *, strays: bool = True) -> list[Any]:
        return []

    monkeypatch.setattr(queue, "mark_dead", and_rescue)
    monkeypatch.setattr(queue, "rescue", never)


def attempt_lowered_on_retry(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = "attempt = tasks.attempt - (locked.status in ('QUEUED', 'PENDING'))::int,\n        permit = false,"
    honest = ("tasks.attempt, locked.worker_id,", "locked.attempt, locked.worker_id,")  # the event says what was
    rewritten(world, monkeypatch, "finish", ("permit = false,", lowered), honest)


def key_in_another_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key commits by itself, then the tasks do, if nothing happens in between."""

    async def submit_keyed(tx: Any, requests: Any) -> list[queue.KeyedAnswer]:
        [request] = requests
        other = await asyncpg.connect(plain(world.url))
        try:
            taken = await other.fetchval(
                "insert into idempotency_keys (owner_id, key, body_hash, answer)"
                " values ($1, $2, $3, json_build_array($4::text)) on conflict do nothing returning key",
                request.owner_id, request.key, request.body_hash, str(request.submissions[0].id),
            )  # fmt: skip
            first = await other.fetchval(
                "select (answer ->> 0)::uuid from idempotency_keys where key = $1", request.key
            )
        finally:
            await other.close()
        if taken:
            born = await queue.submit(tx, request.submissions)
            return [queue.KeyedAnswer(outcome=queue.KeyedOutcome.CREATED, submitted=born)]
        answer = Submitted(id=first, status=TaskStatus.QUEUED, created_at=None, gated=False)  # type: ignore[arg-type]
        return [queue.KeyedAnswer(outcome=queue.KeyedOutcome.REPLAYED, submitted=[answer])]

    monkeypatch.setattr(queue, "submit_keyed", submit_keyed)


def gate_without_the_epoch(_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def guard(_tx: Any, _epoch: int) -> None: ...

    monkeypatch.setattr(queue, "guard", guard)


def gate_without_its_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(world, monkeypatch, "gate_lock", ("select pg_advisory_xact_lock($1, $2)", "select $1::int + $2::int"))


def cap_without_the_gates_lock(world: World, _monkeypatch: pytest.MonkeyPatch) -> None:
    async def unlocked(tx: Any) -> None:
        text = await tx.fetchval("select pg_get_functiondef('taskflow_set_limits(text, int, int, int)'::regprocedure)")
        lock = "perform pg_advisory_xact_lock(29798, 2);"
        assert text.count(lock) == 1, "taskflow_set_limits changed: mend this mutation"
        await tx.execute(text.replace(lock, ""))

    world.run(unlocked(world.observer))


def floors_of_what_was_drawn(_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(settled: Settled, look: SequenceLook) -> int:
        settled.seq = look.last
        return settled.seq

    monkeypatch.setattr(Settled, "step", step)


def urgent_without_a_new_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(world, monkeypatch, "reprioritize", ("nextval('task_seq')", "tasks.seq"))


History = Callable[[World], None]
# The mutation, the history in which it shows, and the invariant that it breaks.
FOUND: list[tuple[Apply, History, str]] = [
    (finish_without_the_claim, a_claim_undone_is_reported, "I3 fence"),
    (succeed_without_the_claim, a_claim_undone_is_reported, "I3 fence"),
    (
        rescue_at_the_moment_of_death_only,
        a_claim_commits_after_the_death_of_its_worker,
        "I1 everything comes to an end",
    ),
    (attempt_lowered_on_retry, a_report_of_a_retried_attempt_is_sent_again, "I4 executions are attempts"),
    (key_in_another_transaction, a_keyed_request_dies_before_its_commit, "I1 acknowledged and not there"),
    (gate_without_the_epoch, an_ex_leader_comes_back_with_the_gate, "I7 a deposed leader wrote"),
    (gate_without_its_lock, two_gates_meet_before_their_commits, "I7 limit"),
    (floors_of_what_was_drawn, a_submit_commits_after_a_floor_was_raised, "QUEUED below its floor"),
    (urgent_without_a_new_place, a_waiting_task_becomes_urgent_above_a_floor, "QUEUED below its floor"),
    (cap_without_the_gates_lock, a_cap_comes_back_while_a_gate_is_under_way, "I7 limit"),
]


def live_through(world: World, history: History) -> None:
    history(world)
    world.check()
    deeds.heal_and_drain(world)


@pytest.mark.parametrize("history", dict.fromkeys(history for _, history, _ in FOUND), ids=lambda one: one.__name__)
def test_the_core_keeps_its_promises(world: World, history: History) -> None:
    live_through(world, history)


@pytest.mark.parametrize(("mutation", "history", "broken"), FOUND, ids=[apply.__name__ for apply, _, _ in FOUND])
def test_a_mutation_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch, mutation: Apply, history: History, broken: str
) -> None:
    mutation(world, monkeypatch)
    with pytest.raises(Violation, match=broken):
        live_through(world, history)
