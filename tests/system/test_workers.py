"""Workers die, pause, hang and leave: rows 7 to 11 of reliability.md §1, with real processes and signals.

Handlers outlast the lease on purpose: short ones hide what a broken fence would do (reliability.md §2.4).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psutil
import pytest

from core import queue_manager as queue
from core.pool import Database
from tests.signals import until
from tests.system.conftest import FULL
from tests.system.history import read, verify
from tests.system.proxy import Proxy, Toxic
from tests.system.world import LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.dev.fleet import Member
    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.xdist_group("workers"),
    pytest.mark.timeout(3600 if FULL else 120),
]

KILLS = 12 if FULL else 3
TERMINATIONS = 50 if FULL else 5
PAUSES = 20 if FULL else 1  # of a worker that runs ten tasks
RESTARTED = """
select max(extract(epoch from next.created_at - lost.created_at))::float8 as seconds
from task_events as lost
join task_events as next on next.task_id = lost.task_id and next.event_type = 'STARTED' and next.attempt = lost.attempt + 1
where lost.event_type = 'RESCUED' and lost.attempt = 1 and lost.task_id = any(%s::uuid[])
"""


@pytest.fixture(scope="module")
def base(module_world: World) -> World:
    """An API and a scheduler."""
    module_world.api()
    module_world.schedulers()
    return module_world


@pytest.fixture
def site(base: World) -> Iterator[World]:
    """The same without any worker, before the test and after it."""
    try:
        yield base
    finally:
        base.fleet.stop(*base.fleet.living("worker"), within=8)


def test_row_07_worker_killed_is_rescued(site: World, history: Path) -> None:
    workers = site.workers(3 if FULL else 2, TASKFLOW_WORKER_SLOTS="8")
    ids: list[str] = []
    for _ in range(KILLS):
        ids += site.submit("awork", 8, history=str(history), seconds=1.0)
        ids += site.submit("work", 4, history=str(history), seconds=0.2)
        victim = workers.pop(0)
        until(lambda pid=victim.pid: pid in site.holders(ids).values(), 20)  # type: ignore[misc]
        site.fleet.kill(victim)
        workers.append(site.fleet.replace(victim))
        # One death after the other: who loses a second worker waits for 15 s by design.
        site.ended(ids, 30)
    verdict = verify(site, ids, history).clean()
    assert verdict.events["RESCUED"] > 0
    assert verdict.causes["worker_lost"] == verdict.events["RESCUED"]
    assert verdict.executions <= len(ids) + verdict.events["RESCUED"]
    assert verdict.charged == 0
    assert site.one(RESTARTED, ids) <= 20


def test_row_08_worker_stopped_three_leases_is_fenced(site: World, history: Path) -> None:
    for turn in range(PAUSES):
        _pause_and_resume(site, history.with_name(f"{history.name}-{turn}"), random.Random(turn))


def _pause_and_resume(site: World, history: Path, rand: random.Random) -> None:
    """Ten tasks on one worker, which sleeps through three leases while its children go on."""
    [paused] = site.workers(TASKFLOW_WORKER_CHILDREN="2", TASKFLOW_WORKER_SLOTS="8")
    # Longer than the lease, all of them; some end while their supervisor sleeps, some after it has come back.
    early, late = LEASE + 1.0, 3 * LEASE + 2.5
    seconds = [rand.uniform(early, 2.5 * LEASE) for _ in range(6)] + [late, late]
    ids = site.submit_each("awork", [{"history": str(history), "seconds": one} for one in seconds])
    ids += site.submit("work", 2, history=str(history), seconds=early)
    site.running(ids)
    [other] = site.workers(TASKFLOW_WORKER_CHILDREN="2", TASKFLOW_WORKER_SLOTS="8")
    deaths = site.deaths()
    paused.pause()
    until(lambda: site.deaths() > deaths, 3 * LEASE)
    until(lambda: set(site.holders(ids).values()) == {other.pid}, 3 * LEASE)
    # It has slept for three leases when the early ones have ended in its children, unheard.
    until(lambda: len({line["task"] for line in read(history) if line["word"] == "end"}) >= 8, 4 * LEASE)
    paused.resume()
    site.ended(ids, 30)
    until(lambda: paused.said("left") or paused.said("this worker was declared dead; it takes a new id"), 10)
    until(lambda: verify(site, ids, history).events["FENCED"] >= 8, 10)
    verdict = verify(site, ids, history).clean()
    assert verdict.executions >= 2 * len(ids)  # each of them ran twice, and one of the two was refused
    assert verdict.events["RESCUED"] == len(ids)
    assert verdict.events["FENCED"] >= 8
    assert verdict.charged == 0
    assert all(pid == other.pid for pid in site.holders(ids).values())
    assert (
        site.one("select count(*) from task_events where event_type = 'FENCED' and created_at < %s", wakes) == 0 or FULL
    )
    _works_again(site, paused, other, history)


def _works_again(site: World, member: Member, other: Member, history: Path) -> None:
    """The one that was dead has a new id, and runs tasks under it."""
    site.stop(other)
    [task] = site.submit("work", history=str(history))
    site.ended([task], 20)
    assert site.holders([task]) == {task: member.pid}
    assert site.one("select count(*) from workers where pid = %s and state = 'alive'", member.pid) == 1
    assert site.one("select count(*) from workers where pid = %s and state = 'dead'", member.pid) == 1
    site.stop(member)


def test_row_09_only_the_child_hangs(site: World, history: Path) -> None:
    [worker] = site.workers(TASKFLOW_WORKER_CHILDREN="3", TASKFLOW_WORKER_SLOTS="4")
    before = site.one("select id from workers where pid = %s and state = 'alive'", worker.pid)
    deaths = site.deaths()
    said = {"timeout_seconds": 3 * LEASE, "max_attempts": 1}  # the beats must go on for longer than a lease
    hung = {
        "the GIL is held in C": _hang(site, "tests.handlers:hold_gil", {"seconds": 60}, said),
        "Python, for ever": _hang(site, "tests.handlers:spin", {}, said),
    }
    [stopped] = site.submit_each("work", [{"history": str(history), "seconds": 30.0}], **_options(said))
    line = until(lambda: next((line for line in read(history) if line["task"] == stopped), None), 10)
    os.kill(line["pid"], signal.SIGSTOP)
    loop = _hang(site, "tests.handlers:aspin", {}, said)
    for task in [*hung.values(), stopped, loop]:
        assert site.ended([task], 30) == {task: "FAILED"}
    errors = site.rows(
        "select error ->> 'type' as type from tasks where id = any(%s::uuid[])", [*hung.values(), stopped]
    )
    assert {row["type"] for row in errors} == {"TimedOut"}
    assert site.deaths() == deaths
    assert site.one("select id from workers where pid = %s and state = 'alive'", worker.pid) == before
    # The slots are free again: three at once, in three new children.
    ids = site.submit("work", 3, history=str(history), seconds=1.0)
    site.running(ids, 20)
    assert set(site.holders(ids).values()) == {worker.pid}
    site.ended(ids)


def _options(said: dict[str, float]) -> dict[str, float]:
    return {"timeout": said["timeout_seconds"], "max_attempts": said["max_attempts"]}


def _hang(site: World, name: str, payload: dict[str, int], said: dict[str, float]) -> str:
    [task] = site.submit_each(name, [payload], **_options(said))
    return task


def test_row_10_worker_terminated_charges_nothing(site: World, history: Path) -> None:
    workers = site.workers(2, TASKFLOW_WORKER_SLOTS="4")
    ids: list[str] = []
    for _ in range(TERMINATIONS):
        ids += site.submit("awork", 4, history=str(history), seconds=0.5)
        ids += site.submit("awork", 2, history=str(history), seconds=2.5)  # longer than the grace of one second
        ids += site.submit("work", 1, history=str(history), seconds=0.5)
        victim = workers.pop(0)
        until(lambda pid=victim.pid: pid in site.holders(ids).values(), 20)  # type: ignore[misc]
        victim.signal(signal.SIGTERM)
        workers.append(site.fleet.replace(victim))
        assert victim.process.wait(20) == 0, victim.last_words()
        site.fleet.ready(workers[-1])
    site.ended(ids, 60)
    verdict = verify(site, ids, history).clean()
    assert verdict.charged == 0
    assert verdict.events["RELEASED"] > 0
    assert verdict.causes["released"] == verdict.events["RELEASED"]
    assert verdict.events["RESCUED"] == 0
    assert verdict.executions == len(ids) + verdict.events["RELEASED"]


def test_row_11_a_task_that_its_worker_forgot_is_given_back(site: World, history: Path) -> None:
    [worker] = site.workers()
    identity = site.one("select id::text from workers where pid = %s and state = 'alive'", worker.pid)
    # As a bug would have it: claimed in the worker's name, under a claim that it knows nothing of.
    site.client.pause("sync")
    [task] = site.submit("work", history=str(history))
    site.rows("update queues set paused = false where name = 'sync'")
    claim = uuid4()
    held = asyncio.run(_claim(site, task, UUID(identity), claim))
    if not held:  # the worker was quicker: then there was nothing to forget
        pytest.skip("the worker claimed it first")
    began = site.one("select clock_timestamp()")
    site.ended([task], 20)
    verdict = verify(site, [task], history).clean()
    assert verdict.causes["forgotten"] == 1
    assert (verdict.executions, verdict.charged) == (1, 0)
    assert site.one("select extract(epoch from clock_timestamp() - %s)::float8", began) < 20
    assert site.one("select state from workers where id = %s", identity) == "alive"


async def _claim(site: World, task: str, worker: UUID, claim: UUID) -> bool:
    async with Database(site.database_url, name="test") as database, database.begin() as tx:
        return bool(await queue.claim(tx, [UUID(task)], worker=worker, claim=claim, types=["tests.system.tasks:work"]))


def test_row_11_a_claim_whose_answer_is_swallowed_restarts(site: World, history: Path) -> None:
    with Proxy(site.database_url) as proxy:
        [worker] = site.workers(DATABASE_URL=proxy.url)
        identity = site.one("select id::text from workers where pid = %s and state = 'alive'", worker.pid)
        swallowed = proxy.arm("-- Claim QUEUED tasks", Toxic.HANG)
        ids = site.submit("work", 3, history=str(history))
        site.ended(ids, 20)
        assert swallowed.fired == 1
        verify(site, ids, history).clean()
        assert site.one("select state from workers where id = %s", identity) == "alive"
        site.stop(worker)


def test_a_killed_supervisor_leaves_no_child_after_a_second(site: World, history: Path) -> None:
    [worker] = site.workers(TASKFLOW_WORKER_CHILDREN="3")
    ids = [*site.submit("work", history=str(history), seconds=60.0)]
    ids += site.submit_each("tests.handlers:hold_gil", [{"seconds": 60}])
    ids += site.submit_each("tests.handlers:ignore_cancel", [{"seconds": 60.0}])
    site.running(ids)
    children = psutil.Process(worker.pid).children(recursive=True)
    assert len(children) >= 3
    site.fleet.kill(worker)
    until(lambda: not any(map(_lives, children)), within=1.0)
    for task in ids:
        site.client.cancel(task, force=True)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
