"""The proof of the core: random histories of every verb on a real PostgreSQL, with every invariant held after each.

Calls are live, stale, doubled, lost on the way back, or left open in the middle while others go on; two processes
believe to lead. `TASKFLOW_TEST_FAULTS=full` runs many more and longer histories with a random seed, which is printed;
`TASKFLOW_TEST_SEED` repeats one.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from core import clock
from core.domain.lifecycle import ENDED, RUNNING
from core.domain.ordering import PriorityType
from tests.machine import deeds
from tests.machine.calls import Fate
from tests.machine.world import CAPPED, KEYS, PLAIN, TYPES, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from core.domain.task import Claimed, Ending

pytestmark = pytest.mark.slow

FULL = os.environ.get("TASKFLOW_TEST_FAULTS") == "full"
fates = st.sampled_from([*[Fate.ACK] * 5, Fate.HOLD, Fate.HOLD, Fate.LOST, Fate.UNDONE, Fate.FAIL])
ends = st.sampled_from([Fate.ACK, Fate.ACK, Fate.LOST, Fate.UNDONE, Fate.FAIL])
some = st.integers(0, 30)  # which one of a list, whatever its length
few = st.integers(1, 3)
kinds = st.sampled_from([*deeds.KINDS, "success"])
queues = st.sampled_from([PLAIN, CAPPED])
rarely = st.sampled_from([False, False, False, True])
spec = st.fixed_dictionaries(
    {
        "queue": st.sampled_from([PLAIN, PLAIN, CAPPED]),
        "type": st.sampled_from([TYPES[0], TYPES[0], TYPES[1]]),
        "concurrency_key": st.sampled_from([*KEYS, "", ""]),
        "priority": st.sampled_from(PriorityType),
        "delayed": rarely,
        "expires": rarely,
    }
)


class Machine(RuleBasedStateMachine):
    """Everything that can happen to a few tasks.

    No rule has a precondition and no draw looks at the state: which of two waiting calls comes first is PostgreSQL's
    choice, and Hypothesis wants to see the same choices in the same places. What cannot be done now does nothing.
    """

    world: World
    seen: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()

    # -- choosing ----------------------------------------------------------------------------------------------------

    def ids(self, which: int, number: int) -> list[UUID]:
        known = [*self.world.known]
        return [known[(which + step) % len(known)] for step in range(min(number, len(known)))]

    def among(self, *statuses: str) -> list[UUID]:
        """The tasks that had one of these statuses a moment ago."""
        rows = self.world.before.tasks if self.world.before else {}
        return [task for task in self.world.known if task in rows and rows[task]["status"] in statuses]

    def picked(self, which: int, number: int, *statuses: str) -> list[UUID]:
        """Mostly tasks of these statuses, and one that perhaps is not."""
        found = self.among(*statuses)
        first = which % max(len(found), 1)
        return [*dict.fromkeys([*found[first : first + number], *self.ids(which, 1)])]

    def attempts(self, who: int, which: int, number: int, *, stale: bool) -> list[Claimed]:
        tasks = [
            task
            for worker in (self.world.workers[who:] + self.world.workers[:who])
            for task in (worker.ghosts if stale else worker.held.values())
        ]
        chosen = {task.id: task for task in tasks[which % max(len(tasks), 1) :][:number]}
        return [*chosen.values()]

    def endings(self, kind: str, tasks: list[Claimed]) -> list[Ending]:
        """Nobody reports "stopped, as I was asked to" who was not asked to."""
        rows = self.world.before.tasks if self.world.before else {}
        asked = {task.id for task in tasks if rows.get(task.id, {}).get("status") == "CANCELLING"}
        return [deeds.ending(task, "release" if kind == "stop" and task.id not in asked else kind) for task in tasks]

    # -- owners ------------------------------------------------------------------------------------------------------

    @initialize(specs=st.lists(spec, min_size=3, max_size=6), fate=fates)
    def begin(self, specs: list[dict[str, Any]], fate: Fate) -> None:
        self.submit(specs, Fate.ACK)
        self.submit_keyed("x", b"1", fate, again=False)

    @rule(specs=st.lists(spec, min_size=1, max_size=3), fate=fates)
    def submit(self, specs: list[dict[str, Any]], fate: Fate) -> None:
        now = clock.now()
        tasks = []
        for each in specs:
            more = dict(each)
            delayed, expires = more.pop("delayed"), more.pop("expires")
            more["scheduled_at"] = now + timedelta(hours=1) if delayed else None
            more["expires_at"] = now + timedelta(hours=2) if expires else None
            tasks.append(deeds.submission(self.world, **more))
        deeds.submit(self.world, tasks, fate)

    @rule(key=st.sampled_from("xy"), body=st.sampled_from([b"1", b"1", b"2"]), again=st.booleans(), fate=fates)
    def submit_keyed(self, key: str, body: bytes, fate: Fate, *, again: bool) -> None:
        if again and self.world.dropped:
            key, body = self.world.dropped.pop()
        deeds.submit_keyed(self.world, key, body, fate)

    @rule(which=some, number=few, force=rarely, running=st.booleans(), grace=st.sampled_from([0, 60]), fate=fates)
    def cancel(self, which: int, number: int, grace: float, fate: Fate, *, force: bool, running: bool) -> None:
        ids = self.picked(which, number, *RUNNING) if running else self.ids(which, number)
        deeds.cancel(self.world, ids, fate, force=force, grace=grace)

    @rule(which=some, number=st.integers(2, 6), fate=fates)
    def redrive(self, which: int, number: int, fate: Fate) -> None:
        deeds.redrive(self.world, self.picked(which, number, *ENDED - {"COMPLETED"}), fate)

    @rule(which=some, number=few, priority=st.none() | st.sampled_from(PriorityType), fate=fates)
    def reprioritize(self, which: int, number: int, priority: PriorityType | None, fate: Fate) -> None:
        if priority is None:
            deeds.trespass(self.world, self.ids(which, number))
        else:
            deeds.reprioritize(self.world, self.ids(which, number), priority, fate)

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(which=some, number=st.integers(0, 2), who=st.integers(0, 2), solo=st.booleans(), fate=fates)
    def claim(self, which: int, number: int, who: int, fate: Fate, *, solo: bool) -> None:
        """Claim what is QUEUED, and `number` more that perhaps are not."""
        ids = dict.fromkeys([*self.among("QUEUED"), *self.ids(which, number)])
        deeds.claim(self.world, self.world.workers[who], [*ids], fate, solo=solo)

    @rule(who=st.integers(0, 2), number=st.integers(1, 6))
    def work_more(self, who: int, number: int) -> None:
        self.work(who, number)

    @rule(who=st.integers(0, 2), number=st.integers(1, 6))
    def work(self, who: int, number: int) -> None:
        """What happens most of the time: the leader lets through, a worker that lives claims."""
        deeds.beat(self.world, who)
        self.open_gates()
        deeds.claim(self.world, self.world.workers[who], self.among("QUEUED")[:number])

    def open_gates(self) -> None:
        for duty in ("promote_due", "gate"):
            deeds.lead(self.world, self.leader(), duty)
        self.world.check()

    def leader(self) -> int:
        return self.world.epochs.index(max(self.world.epochs))

    @rule(who=st.integers(0, 2), which=some, number=few, kind=kinds)
    def finish_more(self, who: int, which: int, number: int, kind: str) -> None:
        self.finish(who, which, number, kind, Fate.ACK, twice=False)

    @rule(who=st.integers(0, 2), which=some, number=few, twice=rarely, kind=kinds, fate=fates)
    def finish(self, who: int, which: int, number: int, kind: str, fate: Fate, *, twice: bool) -> None:
        endings = self.endings(kind, self.attempts(who, which, number, stale=False))
        if endings:
            deeds.finish(self.world, endings * 2 if twice else endings, fate)

    @rule(who=st.integers(0, 2), which=some, number=few, kind=kinds, fate=fates)
    def finish_late(self, who: int, which: int, number: int, kind: str, fate: Fate) -> None:
        """Report on attempts that may have ended long ago, or that never were, as their claim was undone."""
        endings = self.endings(kind, self.attempts(who, which, number, stale=True))
        if endings:
            deeds.finish(self.world, endings, fate)

    @rule(who=st.integers(0, 2), number=few, kind=kinds, again=st.booleans(), fate=fates)
    def zombie(self, who: int, number: int, kind: str, fate: Fate, *, again: bool) -> None:
        """A worker that is only slow is declared dead, its tasks go to another, and then it reports."""
        self.work(who, number)
        tasks = self.attempts(who, 0, number, stale=False)
        deeds.bury(self.world, self.world.workers[who])
        deeds.lead(self.world, self.leader(), "rescue", fate)
        if again:
            self.work((who + 1) % 3, 6)
        if endings := self.endings(kind, tasks):
            deeds.finish(self.world, endings, fate)

    @rule(who=st.integers(0, 2), kind=kinds, fate=fates, claimed=st.sampled_from([Fate.UNDONE, Fate.LOST]))
    def hasty(self, who: int, kind: str, fate: Fate, claimed: Fate) -> None:
        """A worker saw the rows of its claim, did not wait for the COMMIT, and reports; perhaps another runs them."""
        self.open_gates()
        first, second = self.world.workers[who], self.world.workers[(who + 1) % 3]
        ids = self.among("QUEUED")
        call = deeds.claim(self.world, first, ids, claimed)
        deeds.beat(self.world, (who + 1) % 3)
        deeds.claim(self.world, second, ids)
        self.world.check()
        if endings := self.endings(kind, call.answer or []):
            deeds.finish(self.world, endings, fate)

    @rule(who=st.integers(0, 2), fate=fates)
    def dies_claiming(self, who: int, fate: Fate) -> None:
        """The claim is under way while its worker is declared dead and rescued; it may commit yet."""
        self.open_gates()
        deeds.beat(self.world, who)
        deeds.claim(self.world, self.world.workers[who], self.among("QUEUED"), Fate.HOLD)
        deeds.bury(self.world, self.world.workers[who])
        deeds.lead(self.world, self.leader(), "rescue", fate)

    @rule(key=st.sampled_from(["k1", "k2"]), name=queues, fate=fates)
    def two_gates(self, key: str, name: str, fate: Fate) -> None:
        """A second gate comes while the first one is before its COMMIT, and something more urgent has come."""
        for priority, mine in ((PriorityType.NORMAL, Fate.HOLD), (PriorityType.HIGH, fate)):
            task = deeds.submission(self.world, queue=name, concurrency_key=key, priority=priority)
            deeds.submit(self.world, [task])
            deeds.lead(self.world, self.leader(), "gate", mine)

    @rule(who=st.integers(0, 2), number=few, kind=kinds, overdue=st.booleans(), fate=fates)
    def stop(self, who: int, number: int, kind: str, fate: Fate, *, overdue: bool) -> None:
        """Running tasks are asked to stop; they do, or end otherwise, or their grace is over before they tell."""
        self.work(who, number)
        tasks = self.attempts(who, 0, number, stale=False)
        deeds.cancel(self.world, [task.id for task in tasks], fate, grace=0.0)
        self.world.check()
        if overdue:
            deeds.lead(self.world, self.leader(), "cancel_overdue", fate)
        if endings := self.endings(kind, tasks):
            deeds.finish(self.world, endings)

    @rule(which=some, doubled=st.booleans(), fate=fates)
    def send_again(self, which: int, fate: Fate, *, doubled: bool) -> None:
        batches = self.world.spent if doubled and self.world.spent else self.world.unsure
        if batches:
            deeds.finish(self.world, batches[which % len(batches)], fate)

    @rule(who=st.integers(0, 2), what=st.sampled_from(["beat", "stock", "recover"]), fate=fates)
    def look_around(self, who: int, what: str, fate: Fate) -> None:
        if what == "beat":
            deeds.beat(self.world, who)
        elif what == "stock":
            deeds.take_stock(self.world, self.world.workers[who], fate)
        else:
            deeds.recover(self.world, self.world.workers[who])

    # -- leaders -----------------------------------------------------------------------------------------------------

    @rule(who=st.integers(0, 1), duty=st.sampled_from(list(deeds.DUTIES)), fate=fates)
    def lead(self, who: int, duty: str, fate: Fate) -> None:
        deeds.lead(self.world, who, duty, fate)

    @rule(fate=fates)
    def gate(self, fate: Fate) -> None:
        deeds.lead(self.world, self.leader(), "gate", fate)

    @rule(fate=fates)
    def raise_floors(self, fate: Fate) -> None:
        deeds.raise_floors(self.world, self.leader(), fate)

    @rule(fate=fates)
    def take_over(self, fate: Fate) -> None:
        deeds.take_over(self.world, 1 - self.leader(), fate)

    @rule(who=st.integers(0, 2), late=rarely, rescue=st.booleans(), fate=fates)
    def bury(self, who: int, fate: Fate, *, late: bool, rescue: bool) -> None:
        deeds.bury(self.world, self.world.workers[who], seen=-1 if late else None)
        if rescue:
            deeds.lead(self.world, self.leader(), "rescue", fate)

    @rule(most=st.integers(0, 3), per_key=few, paused=st.none() | st.booleans(), name=queues, fate=fates)
    def administer(self, most: int, per_key: int, paused: bool | None, name: str, fate: Fate) -> None:  # noqa: FBT001
        if paused is None:
            deeds.configure(self.world, fate, most=most, per_key=per_key)
        else:
            deeds.pause(self.world, name, fate, paused=paused)

    # -- time and fate -----------------------------------------------------------------------------------------------

    @rule(late=st.sampled_from(["promote_due", "expire", "cancel_overdue"]), fate=fates)
    def time_passes(self, late: str, fate: Fate) -> None:
        self.world.run(self.world.pass_time())
        for duty in ("expire", "cancel_overdue", "promote_due"):
            deeds.lead(self.world, self.leader(), duty, fate if duty == late else Fate.ACK)

    @rule(which=some, fate=ends)
    def decide(self, which: int, fate: Fate) -> None:
        if calls := self.world.line.open:
            self.world.resolve(calls[which % len(calls)], fate)

    @rule(which=some, fate=ends)
    def decide_soon(self, which: int, fate: Fate) -> None:
        self.decide(which, fate)

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        for trail in self.world.look().trails.values():
            self.world.seen.update(event["event_type"] for event in trail)
        deeds.heal_and_drain(self.world)
        self.seen.update(self.world.seen)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(database_url)
    try:
        yield made
    finally:
        made.close()


PROFILE = settings(
    max_examples=500 if FULL else 80,
    stateful_step_count=100 if FULL else 60,
    derandomize=False,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if FULL else [Phase.generate],
)


@pytest.mark.timeout(7200 if FULL else 240)
def test_every_history_keeps_every_promise(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    number = int(os.environ.get("TASKFLOW_TEST_SEED") or (secrets.randbits(32) if FULL else 20261124))

    class Seeded(Machine):
        pass

    Seeded.world, Seeded.seen = world, Counter()
    with capsys.disabled():
        print(f"\nstate machine: TASKFLOW_TEST_SEED={number}")
    run_state_machine_as_test(seed(number)(Seeded), settings=PROFILE)
    with capsys.disabled():
        print(f"state machine: {dict(sorted(Seeded.seen.items()))}")
    # A run without these proves nothing (reliability.md §4, lesson 2).
    for event in ("fenced", "rescue", "deposed", "HOLD", "LOST", "UNDONE", "expire", "cancel_overdue", "raise_floors"):
        assert Seeded.seen[event] > 0, event
