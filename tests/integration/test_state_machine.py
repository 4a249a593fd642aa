"""The proof of the core: random histories of every verb on a real PostgreSQL, with every invariant held after each.

Calls are live, stale, doubled, lost on the way back, or left open in the middle while others go on; two processes
believe to lead. `TASKFLOW_TEST_FAULTS=full` runs many more and longer histories with a random seed, which is printed;
`TASKFLOW_TEST_SEED` repeats one.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from core import clock
from core.domain.ordering import PriorityType
from core.domain.task import Claimed
from tests.machine import deeds
from tests.machine.calls import Fate
from tests.machine.world import CAPPED, KEYS, PLAIN, TYPES, World

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("machine")]

FULL = os.environ.get("TASKFLOW_TEST_FAULTS") == "full"
fates = st.sampled_from([Fate.ACK, Fate.ACK, Fate.ACK, Fate.HOLD, Fate.HOLD, Fate.LOST, Fate.UNDONE, Fate.FAIL])
ends = st.sampled_from([Fate.ACK, Fate.ACK, Fate.LOST, Fate.UNDONE, Fate.FAIL])
some = st.integers(0, 30)  # which one of a list, whatever its length
few = st.integers(1, 3)
specs = st.lists(
    st.fixed_dictionaries(
        {
            "queue": st.sampled_from([PLAIN, CAPPED]),
            "type": st.sampled_from([TYPES[0], TYPES[0], TYPES[1]]),
            "concurrency_key": st.sampled_from([*KEYS, ""]),
            "priority": st.sampled_from(PriorityType),
            "delayed": st.booleans(),
            "expires": st.booleans(),
        }
    ),
    min_size=1,
    max_size=3,
)


class Machine(RuleBasedStateMachine):
    """Everything that can happen to a few tasks."""

    world: World
    seen: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.world.reset()

    # -- choosing ----------------------------------------------------------------------------------------------------

    def ids(self, which: int, number: int) -> list[UUID]:
        known = [*self.world.known]
        return [known[(which + step) % len(known)] for step in range(min(number, len(known)))]

    def attempts(self, which: int, number: int, *, stale: bool) -> list[Claimed]:
        worker = self.world.workers[which % 3]
        tasks = worker.ghosts if stale else [*worker.held.values()]
        chosen = {task.id: task for task in tasks[which % max(len(tasks), 1) :][:number]}
        return [*chosen.values()]

    # -- owners ------------------------------------------------------------------------------------------------------

    @rule(specs=specs, fate=fates)
    def submit(self, specs: list[dict[str, Any]], fate: Fate) -> None:
        now = clock.now()
        tasks = []
        for spec in specs:
            more = dict(spec)
            delayed, expires = more.pop("delayed"), more.pop("expires")
            tasks.append(
                deeds.submission(
                    self.world,
                    **more,
                    scheduled_at=now + timedelta(hours=1) if delayed and expires else None,
                    expires_at=now + timedelta(hours=2) if expires else None,
                )
            )
        deeds.submit(self.world, tasks, fate)

    @rule(key=st.sampled_from("xy"), body=st.sampled_from([b"1", b"1", b"2"]), fate=fates)
    def submit_keyed(self, key: str, body: bytes, fate: Fate) -> None:
        deeds.submit_keyed(self.world, key, body, fate)

    @precondition(lambda self: self.world.dropped)
    @rule(fate=fates)
    def submit_again(self, fate: Fate) -> None:
        deeds.submit_keyed(self.world, *self.world.dropped.pop(), fate)

    @precondition(lambda self: self.world.known)
    @rule(which=some, number=few, force=st.booleans(), fate=fates)
    def cancel(self, which: int, number: int, fate: Fate, *, force: bool) -> None:
        deeds.cancel(self.world, self.ids(which, number), fate, force=force)

    @precondition(lambda self: self.world.known)
    @rule(which=some, number=few, fate=fates)
    def redrive(self, which: int, number: int, fate: Fate) -> None:
        deeds.redrive(self.world, self.ids(which, number), fate)

    @precondition(lambda self: self.world.known)
    @rule(which=some, number=few, priority=st.sampled_from(PriorityType), fate=fates)
    def reprioritize(self, which: int, number: int, priority: PriorityType, fate: Fate) -> None:
        deeds.reprioritize(self.world, self.ids(which, number), priority, fate)

    @precondition(lambda self: self.world.known)
    @rule(which=some)
    def trespass(self, which: int) -> None:
        deeds.trespass(self.world, self.ids(which, 2))

    # -- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.known)
    @rule(which=some, number=st.integers(1, 6), who=st.integers(0, 2), solo=st.booleans(), fate=fates)
    def claim(self, which: int, number: int, who: int, fate: Fate, *, solo: bool) -> None:
        deeds.claim(self.world, self.world.workers[who], self.ids(which, number), fate, solo=solo)

    @precondition(lambda self: any(worker.lost for worker in self.world.workers))
    @rule(who=st.integers(0, 2))
    def recover(self, who: int) -> None:
        deeds.recover(self.world, self.world.workers[who])

    @precondition(lambda self: any(worker.ghosts for worker in self.world.workers))
    @rule(which=some, number=few, stale=st.booleans(), twice=st.booleans(), kind=st.sampled_from(deeds.KINDS), fate=fates)
    def finish(self, which: int, number: int, kind: str, fate: Fate, *, stale: bool, twice: bool) -> None:
        endings = [deeds.ending(task, kind) for task in self.attempts(which, number, stale=stale)]
        if endings:
            deeds.finish(self.world, endings * 2 if twice else endings, fate)

    @precondition(lambda self: self.world.unsure or self.world.spent)
    @rule(which=some, doubled=st.booleans(), fate=fates)
    def send_again(self, which: int, fate: Fate, *, doubled: bool) -> None:
        batches = self.world.spent if doubled and self.world.spent else self.world.unsure
        if batches:
            deeds.finish(self.world, batches[which % len(batches)], fate)

    @rule(who=st.integers(0, 2))
    def beat(self, who: int) -> None:
        deeds.beat(self.world, who)

    @rule(who=st.integers(0, 2), fate=fates)
    def take_stock(self, who: int, fate: Fate) -> None:
        deeds.take_stock(self.world, self.world.workers[who], fate)

    # -- leaders -----------------------------------------------------------------------------------------------------

    @rule(who=st.integers(0, 1), duty=st.sampled_from([*deeds.DUTIES, "gate", "rescue"]), fate=fates)
    def lead(self, who: int, duty: str, fate: Fate) -> None:
        deeds.lead(self.world, who, duty, fate)

    @rule(who=st.integers(0, 1), fate=fates)
    def take_over(self, who: int, fate: Fate) -> None:
        deeds.take_over(self.world, who, fate)

    @rule(who=st.integers(0, 2), late=st.booleans())
    def bury(self, who: int, *, late: bool) -> None:
        deeds.bury(self.world, self.world.workers[who], seen=-1 if late else None)

    @rule(most=st.integers(1, 3), per_key=few, fate=fates)
    def configure(self, most: int, per_key: int, fate: Fate) -> None:
        deeds.configure(self.world, fate, most=most, per_key=per_key)

    @rule(name=st.sampled_from([PLAIN, CAPPED]), paused=st.booleans(), fate=fates)
    def pause(self, name: str, fate: Fate, *, paused: bool) -> None:
        deeds.pause(self.world, name, fate, paused=paused)

    # -- time and fate -----------------------------------------------------------------------------------------------

    @rule()
    def time_passes(self) -> None:
        self.world.run(self.world.pass_time())

    @precondition(lambda self: self.world.line.open)
    @rule(which=some, fate=ends)
    def decide(self, which: int, fate: Fate) -> None:
        calls = self.world.line.open
        self.world.resolve(calls[which % len(calls)], fate)

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
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
    max_examples=1000 if FULL else 60,
    stateful_step_count=80 if FULL else 40,
    deadline=None,
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
    for event in ("fenced", "rescue", "deposed", "HOLD", "LOST", "UNDONE", "expire", "cancel_overdue"):
        assert Seeded.seen[event] > 0, event
