"""Workers that are killed, stopped, hung, told to leave, or forget: rows 7 to 11 of reliability.md §1.

PostgreSQL's rows and events, and what handlers wrote down themselves, are the evidence.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psutil
import pytest

from core import queue_manager as queue
from core.database import Database
from core.domain.task import Submission
from taskflow_queue import verbs
from taskflow_queue.options import Options
from tests.signals import until
from tests.system.conftest import FULL
from tests.system.history import read, verify
from tests.system.proxy import Proxy, Toxic
from tests.system.world import LEASE
from tests.worker_secret import claim_behind_its_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from services.dev.fleet import Member
    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(1200 if FULL else 120),
]

WORKERS = 3
LONG, QUICK = 6, 40
LOT = LONG + 2 * QUICK
SOON = 20.0  # what is promised of an orphan, and of a task that its worker has forgotten
LONGER = LEASE + 0.7
KILLS, TERMINATIONS, STOPPED = (12, 50, 200) if FULL else (3, 4, 10)
WORK, AWORK, ABESIDE = (f"tests.system.tasks:{name}" for name in ("work", "awork", "abeside"))
UNCHARGED = "select count(*) from tasks where id = any(%s::uuid[]) and (retry_count, crash_count) = (0, 0)"
# From the ending of this cause, or of the moment when its worker was killed, to the task's next start.
RESTART = """
select coalesce(max(extract(epoch from next.at - coalesce(%s::timestamptz, lost.started_at))), 0)::float8
from task_events as lost cross join lateral (
    select coalesce(min(created_at), 'infinity') as at from task_events
    where task_id = lost.task_id and event_type::text = 'STARTED' and attempt > lost.attempt
) as next
where lost.task_id = any(%s::uuid[]) and lost.cause = %s and (%s::uuid is null or lost.worker_id = %s::uuid)
"""
ALL_FREE = f"""
select count(*) = {WORKERS} and bool_and(free_sync = sync_slots and free_async = async_slots)
from workers where state = 'alive'
"""
IDS_OF = "select id::text, state, beat_seq from workers where pid = %s order by created_at"


@pytest.fixture(scope="module")
def fleet(module_world: World) -> World:
    """An API, a scheduler, and three workers with one child each."""
    module_world.api()
    module_world.fleet.scheduler()
    module_world.workers(WORKERS)
    return module_world


@pytest.fixture(autouse=True)
def _as_many_as_before(fleet: World) -> Iterator[None]:
    """A test replaces the workers that it ends, and none of the other processes minds."""
    until(lambda: fleet.one(ALL_FREE), 30)
    others = {one.pid for one in fleet.fleet.living() if one.role != "worker"}
    yield
    assert {one.pid for one in fleet.fleet.living() if one.role != "worker"} == others
    assert len(fleet.fleet.living("worker")) == WORKERS


def send(world: World, name: str, number: int, queue_name: str, payload: dict[str, Any], **said: Any) -> list[str]:
    """Submit so many of a task with one request."""
    bodies = verbs.bodies_of(name, [json.dumps(payload).encode()] * number, Options(queue=queue_name, **said))
    return world.submit_bodies(bodies)


def one_by_one(world: World, history: Path) -> None:
    """Have every worker run a sync task that is not short: from then on none waits in a child behind another."""
    everybody = {one.pid for one in world.fleet.living("worker")}
    seen: set[int] = set()

    def all_seen() -> bool:
        ids = send(world, WORK, WORKERS, "sync", {"history": str(history), "seconds": 0.2})
        world.ended(ids)
        seen.update(world.holders(ids).values())
        return seen >= everybody

    until(all_seen, 30)


def load(world: World, history: Path, *, seconds: float = LONGER) -> list[str]:
    """A mixed lot, of which the first LONG take so long: longer than a lease."""
    ids = send(world, AWORK, LONG, "async", {"history": str(history), "seconds": seconds})
    ids += send(world, AWORK, QUICK, "async", {"history": str(history), "seconds": 0.2})
    return ids + send(world, WORK, QUICK, "sync", {"history": str(history), "seconds": 0.02})


def busiest(world: World, ids: Sequence[str]) -> Member:
    """Wait until a worker runs some of these; the one that runs most."""

    def find() -> Member | None:
        found = world.rows(
            "select workers.pid from tasks join workers on workers.id = tasks.worker_id"
            " where tasks.id = any(%s::uuid[]) and tasks.status::text = 'IN_PROGRESS'"
            " group by workers.pid order by count(*) desc",
            list(ids),
        )
        living = {member.pid: member for member in world.fleet.living("worker")}
        return next((living[row["pid"]] for row in found if row["pid"] in living), None)

    return until(find, 30)


def restart_seconds(
    world: World, ids: Sequence[str], cause: str, *, since: object = None, worker: str | None = None
) -> float:
    """The longest of them all."""
    return float(world.one(RESTART, since, list(ids), cause, worker, worker))


def starts(history: Path) -> Counter[str]:
    return Counter(line["task"] for line in read(history) if line["word"] == "start")


# ── dead, or thought to be ──────────────────────────────────────────────────────────────────────────────


def test_row_07_worker_kill_9(fleet: World, history: Path) -> None:
    ids: list[str] = []
    killed: list[tuple[str, object]] = []
    for _ in range(KILLS):  # each among new tasks: the second time costs one a pause of 15 s, see RESCUE_BACKOFF
        ids += load(fleet, history)
        victim = busiest(fleet, ids[-LOT:][:LONG])
        identity = fleet.rows(IDS_OF, victim.pid)[-1]["id"]
        fleet.fleet.kill(victim)
        killed.append((identity, fleet.one("select clock_timestamp()")))
        fleet.fleet.ready(fleet.fleet.replace(victim))
        fleet.ended(ids, 60)

    verdict = verify(fleet, ids, history).clean()
    assert set(verdict.causes) == {"returned", "worker_lost"}
    assert (verdict.causes["returned"], verdict.charged) == (len(ids), 0)
    assert verdict.causes["worker_lost"] >= KILLS
    # Who was killed between a claim and the handler's start has an attempt, and no execution.
    assert len(ids) <= verdict.executions <= len(ids) + verdict.causes["worker_lost"]
    for identity, moment in killed:
        assert restart_seconds(fleet, ids, "worker_lost", since=moment, worker=identity) <= SOON
    lost = "select distinct worker_id::text as id from task_events where cause = 'worker_lost'"
    lost += " and task_id = any(%s::uuid[])"
    assert {row["id"] for row in fleet.rows(lost, ids)} <= {identity for identity, _ in killed}


def test_kill_9_of_a_supervisor_leaves_no_child(fleet: World, history: Path) -> None:
    """Also when a child is in the middle of C code that does not give the GIL back, or in a `while True`."""
    one_by_one(fleet, history.with_name(f"{history.name}-before"))
    bad = send(fleet, "tests.handlers:hold_gil", 1, "default", {"seconds": 40}, timeout=60.0)
    bad += send(fleet, "tests.handlers:spin", 1, "default", {}, timeout=60.0)
    ids = send(fleet, AWORK, 4, "async", {"history": str(history), "seconds": 0.3})
    fleet.running(bad)
    pids = fleet.holders(bad)
    victims = [member for member in fleet.fleet.living("worker") if member.pid in pids.values()]
    assert len(victims) == len(bad)
    children = [child for one in victims for child in psutil.Process(one.pid).children(recursive=True)]
    assert len(children) >= len(victims)
    for victim in victims:
        fleet.fleet.kill(victim)

    until(lambda: not any(_runs(child) for child in children))

    for task in bad:
        assert fleet.client.cancel(task, force=True) == "CANCELLED"
    fleet.fleet.ready(*[fleet.fleet.replace(victim) for victim in victims])
    fleet.ended(ids)
    verify(fleet, ids, history).clean()


def _runs(child: psutil.Process) -> bool:
    try:
        return bool(child.is_running() and child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_row_08_worker_stopped_three_leases_is_fenced(fleet: World, history: Path) -> None:
    stopped: list[str] = []
    ids: list[str] = []
    outcomes = 0
    while len(stopped) < STOPPED:
        held, sent, stale = _stop_three_leases(fleet, history)
        stopped, ids, outcomes = stopped + held, ids + sent, outcomes + stale

    verdict = verify(fleet, ids, history).clean()  # each stored result is that of the attempt that was recorded
    assert verdict.causes["worker_lost"] >= len(stopped)
    assert verdict.charged == 0
    ran = starts(history)
    assert all(ran[task] >= 2 for task in stopped)
    assert verdict.events["FENCED"] == outcomes > 0


def _stop_three_leases(world: World, history: Path) -> tuple[list[str], list[str], int]:
    """Stop all workers but one for so long; what they held, everything sent, and how many stale outcomes came back.

    Their children go on and end the short tasks; the longest ones still run when their supervisor wakes up.
    """
    stopped = history.with_name(f"{history.name}-{uuid4().hex}")
    short = send(world, ABESIDE, 20, "async", {"history": str(history), "until": str(stopped)})
    endless = send(world, AWORK, 2 * WORKERS, "async", {"history": str(history), "seconds": 7 * LEASE})
    ids = [*short, *endless]
    until(lambda: all(starts(history)[task] for task in ids), 20)
    holders = world.holders(ids)
    number = Counter(holders.values())
    living = {member.pid: member for member in world.fleet.living("worker")}
    victims = [living[pid] for pid, _ in number.most_common(WORKERS - 1)]
    before = {victim.pid: world.rows(IDS_OF, victim.pid)[-1]["id"] for victim in victims}
    for victim in victims:
        victim.signal(signal.SIGSTOP)
    stopped.touch()
    wake = monotonic() + 3 * LEASE
    identities = list(before.values())
    running = "select id::text, attempt from tasks where worker_id = any(%s::uuid[]) and status::text = 'IN_PROGRESS'"
    held = {row["id"]: row["attempt"] for row in world.rows(running, identities)}

    until(lambda: monotonic() >= wake, 4 * LEASE)
    world.ended([task for task in short if task in held])  # by others
    ended = {(line["task"], line["attempt"]) for line in read(history) if line["word"] == "end"}
    stale = [(task, attempt) for task, attempt in held.items() if (task, attempt) in ended]
    woken = monotonic()
    for victim in victims:
        victim.signal(signal.SIGCONT)

    for victim in victims:  # the same process, under a new id
        reborn = until(lambda one=victim: _reborn(world, one, before[one.pid]), 20)
        assert victim.alive(), reborn
    world.ended(ids)
    fenced = "select task_id::text as id, attempt from task_events where event_type::text = 'FENCED'"
    refused = world.rows(fenced + " and task_id = any(%s::uuid[])", ids)
    told = [(row["id"], row["attempt"]) for row in refused]
    late = {(line["task"], line["attempt"]): line["at"] for line in read(history) if line["word"] == "end"}
    late = {(task, attempt): late.get((task, attempt), 0.0) for task, attempt in held.items()}
    # One for each outcome; what was stopped in the very moment of the awakening may have sent one or not.
    assert set(stale) <= set(told) <= {one for one, at in late.items() if at}
    assert len(set(told)) == len(told)
    assert max(late.values()) < woken + LEASE, "a fenced handler went on"
    return list(held), ids, len(told)


def _reborn(world: World, victim: Member, before: str) -> str | None:
    rows = world.rows(IDS_OF, victim.pid)
    states = {row["id"]: row["state"] for row in rows}
    return next((one for one, state in states.items() if state == "alive" and states[before] == "dead"), None)


# ── alive, and it is the child that is not well ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["sync", "loop"])
def test_row_09_hung_child(fleet: World, history: Path, how: str) -> None:
    """Every sync place is held on to, or a loop is blocked: for longer than the lease."""
    limit: dict[str, Any] = {"timeout": 2 * LEASE, "max_attempts": 1}
    if how == "sync":
        one_by_one(fleet, history.with_name(f"{history.name}-before"))
        bad = send(fleet, "tests.handlers:hold_gil", WORKERS - 1, "default", {"seconds": 60}, **limit)
        bad += send(fleet, "tests.handlers:spin", 1, "default", {}, **limit)
    else:
        bad = send(fleet, "tests.handlers:aspin", 1, "default", {}, **limit)
    fleet.running(bad)
    assert len(set(fleet.holders(bad).values())) == len(bad)  # one child each: no place is left
    dead = fleet.deaths()
    alive = "select id::text, beat_seq from workers where state = 'alive'"
    beats = {row["id"]: row["beat_seq"] for row in fleet.rows(alive)}
    after = send(fleet, WORK, 2 * WORKERS, "sync", {"history": str(history)})
    after += send(fleet, AWORK, 2 * WORKERS, "async", {"history": str(history)})

    fleet.ended(bad)
    told = fleet.rows("select id::text, status::text, error from tasks where id = any(%s::uuid[])", bad)
    assert Counter((row["status"], row["error"]["type"]) for row in told) == {("FAILED", "TimedOut"): len(bad)}
    causes = "select cause from task_events where task_id = any(%s::uuid[]) and event_type::text = 'FAILED'"
    assert Counter(row["cause"] for row in fleet.rows(causes, bad)) == {"timeout": len(bad)}
    now = {row["id"]: row["beat_seq"] for row in fleet.rows(alive)}
    assert all(now[worker] >= beat + 3 for worker, beat in beats.items()), (beats, now)

    fleet.ended(after)
    verdict = verify(fleet, after, history).clean()
    assert (set(verdict.causes) - {"released"}, verdict.charged) == ({"returned"}, 0)
    assert fleet.deaths() == dead
    until(lambda: fleet.one(ALL_FREE), 20)


# ── told to leave ───────────────────────────────────────────────────────────────────────────────────────


def test_row_10_sigterm_releases_uncharged(fleet: World, history: Path) -> None:
    ids: list[str] = []
    codes: list[int | None] = []
    for _ in range(TERMINATIONS):
        ids += load(fleet, history, seconds=4.0)  # what was begun just now outlasts the drain of 1 s
        leaving = busiest(fleet, ids[-LOT:][:LONG])
        new = fleet.fleet.replace(leaving)
        codes += fleet.fleet.stop(leaving)
        fleet.fleet.ready(new)
    fleet.ended(ids, 60)

    assert codes == [0] * TERMINATIONS
    verdict = verify(fleet, ids, history).clean()
    assert verdict.statuses == Counter(COMPLETED=len(ids))
    assert fleet.one(UNCHARGED + " and worker_deaths = 0", ids) == len(ids)
    assert set(verdict.causes) == {"returned", "released"}
    assert verdict.executions <= len(ids) + verdict.causes["released"]


# ── alive, and forgetful ────────────────────────────────────────────────────────────────────────────────


def test_row_11_forgotten_claim(fleet: World, history: Path) -> None:
    """PostgreSQL says that a living worker runs these, and no answer of a claim ever told it so."""
    dead = fleet.deaths()
    pid = fleet.fleet.living("worker")[0].pid
    worker = UUID(fleet.rows(IDS_OF, pid)[-1]["id"])
    ids = [str(task) for task in asyncio.run(_claim_behind_its_back(fleet, history, worker, 5))]
    fleet.ended(ids)

    verdict = verify(fleet, ids, history).clean()
    assert verdict.causes == Counter(forgotten=len(ids), returned=len(ids))
    assert (verdict.executions, verdict.charged) == (len(ids), 0)
    assert fleet.one(UNCHARGED, ids) == len(ids)
    assert restart_seconds(fleet, ids, "forgotten") <= SOON
    assert fleet.deaths() == dead
    assert fleet.rows(IDS_OF, pid)[-1]["id"] == str(worker)


async def _claim_behind_its_back(world: World, history: Path, worker: UUID, number: int) -> list[UUID]:
    payload = json.dumps({"history": str(history)})
    tasks = [
        Submission(id=uuid4(), owner_id=world.owner, type=WORK, queue="sync", payload=payload) for _ in range(number)
    ]
    async with Database(world.database_url, name="tf-test", size=1) as database, database.begin() as tx:
        ids = [born.id for born in await queue.submit(tx, tasks)]
        assert await claim_behind_its_back(tx, ids, worker, [WORK]) == number
    return ids


@pytest.mark.skipif(not FULL, reason="a worker waits ten seconds for an answer: only at full size")
def test_row_11_swallowed_answer(fleet: World, history: Path) -> None:
    """The claim is committed; its answer never comes, and the connection stays."""
    with Proxy(fleet.database_url) as proxy:
        [worker] = fleet.workers(1, DATABASE_URL=proxy.url, TASKFLOW_WORKER_QUEUES="swallowed")
        armed = proxy.arm("taskflow_claim_", Toxic.HANG)
        [task] = send(fleet, WORK, 1, "swallowed", {"history": str(history)})
        fleet.running([task])
        assert armed.fired == 1
        identity = fleet.rows(IDS_OF, worker.pid)[-1]["id"]
        fleet.ended([task])
        assert fleet.rows(IDS_OF, worker.pid)[-1]["id"] == identity
        fleet.stop(worker)

    verdict = verify(fleet, [task], history).clean()
    assert (verdict.executions, verdict.charged) == (1, 0)
    assert set(verdict.causes) <= {"returned", "forgotten"}
    [line] = [line for line in read(history) if line["word"] == "start"]
    if line["attempt"] == 1:  # read back: the answer came late, and nothing was given back
        assert worker.said("the answer to a claim was lost and read back") is not None
    took = "select extract(epoch from finished_at - created_at)::float8 from tasks where id = %s"
    assert fleet.one(took, task) <= SOON
