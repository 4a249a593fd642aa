"""`taskflow verify` finds what contradicts the events, and nothing where nothing does."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from core import checkup, config, verify
from core import queue_manager as queue
from core.database import Database
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, Submission, WorkerFace
from tests.conftest import _admin
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from core.embedded import Servers

PASS = "set local taskflow.change_ended_tasks = on;"
LAST_EVENT = "select max(id) from task_events where task_id = $1 and event_type <> 'FENCED'"
SMALL = {"tasks": 2, "events": 5}


class Life(NamedTuple):
    """A worker, and a task in each way to be: waiting, running, ended, and ended again after a retry."""

    worker: UUID
    waiting: UUID
    running: UUID
    cancelling: UUID
    completed: UUID
    cancelled: UUID
    retried: UUID
    retries: UUID
    expired: UUID


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, name="tf-test") as database:
        yield database


async def lived(db: Database) -> Life:
    """Let tasks live as the services let them, some of them more than once."""
    worker = uuid4()
    ids = {name: uuid4() for name in Life._fields[1:]}
    life = Life(worker, **ids)
    async with db.begin() as tx:
        await queue.ensure_partitions(tx)
        await queue.ensure_queues(tx, ["default"])
        await queue.register_worker(
            tx, WorkerFace(id=worker, secret=SECRET, name="w", queues=("default",), sync_types=("a:b",), async_types=(),
                           sync_slots=9, async_slots=0)
        )  # fmt: skip
        await queue.submit(tx, [Submission(id=one, owner_id=1, type="a:b") for one in ids.values()])
        await queue.cancel(tx, [life.retried], owner_id=1, by="me")
    for _ in range(2):  # the number of its attempt stays 0 all the while
        async with db.begin() as tx:
            await queue.redrive(tx, [life.retried], owner_id=1, by="me")
            await queue.cancel(tx, [life.retried], owner_id=1, by="me")
    async with db.begin() as tx:
        await queue.redrive(tx, [life.retried], owner_id=1, by="me")
    for number in range(3):
        await attempt(db, worker, life.retries, Cause.RETRY)
        await attempt(db, worker, life.retried, Cause.GIVE_UP)
        if number < 2:
            async with db.begin() as tx:
                await queue.redrive(tx, [life.retried], owner_id=1, by="me")
                await tx.execute("update tasks set scheduled_at = now() where status = 'PENDING'")
                await queue.promote_due(tx)
    await attempt(db, worker, life.completed, Cause.SUCCEED)
    async with db.begin() as tx:
        await queue.claim(tx, [life.running, life.cancelling, life.cancelled], worker=worker, secret=SECRET,
                          claim=uuid4(), types=["a:b"])  # fmt: skip
        await queue.cancel(tx, [life.cancelling], owner_id=1, by="me")
        await queue.cancel(tx, [life.cancelled], owner_id=1, by="me", force=True)
        await tx.execute("update tasks set expires_at = now() where id = $1", life.expired)
        await queue.expire(tx)
    return life


async def attempt(db: Database, worker: UUID, task: UUID, cause: Cause) -> None:
    reason = Reason.RETURNED if cause is Cause.SUCCEED else Reason.ERROR
    async with db.begin() as tx:
        [held] = await queue.claim(tx, [task], worker=worker, secret=SECRET, claim=uuid4(), types=["a:b"])
        ending = Ending(task, held.attempt, held.claim, cause, reason, "1", failures=int(cause is not Cause.SUCCEED))
        assert await queue.finish(tx, [ending])
        late = ending._replace(cause=Cause.SUCCEED, reason=Reason.RETURNED)
        assert await queue.finish(tx, [late]) == []
        await queue.record_fenced(tx, [late])


async def found(db: Database, *, tasks: int = 1000, events: int = 1000) -> set[tuple[UUID, str]]:
    parts = [part async for part in verify.slices(db, queue.FIRST_ID, tasks=tasks, events=events)]
    return {(one.id, one.kind) for part in parts for one in part.found}


async def do(db: Database, statements: str) -> None:
    async with db.begin() as tx:
        await tx.execute(PASS + statements)


async def test_what_the_services_write_is_never_found(db: Database) -> None:
    await lived(db)
    assert await found(db) == set()
    parts = [part async for part in verify.slices(db, queue.FIRST_ID, **SMALL)]
    assert len(parts) > 3
    async with db.connection() as tx:
        row = await tx.fetchrow("select (select count(*) from tasks), (select count(*) from task_events) as events")
    assert (sum(part.tasks for part in parts), sum(part.events for part in parts)) == tuple(row)
    assert [one for part in parts for one in part.found] == []


# What somebody does to the database by hand, and what is found then. The first three are the promise itself.
MUTATIONS = {
    "an ended task is another one": (
        "completed",
        "update tasks set status = 'FAILED' where id = '{task}'",
        {"contradiction"},
    ),
    "an attempt ends twice": (
        "completed",
        (
            "insert into task_events (task_id, event_type, attempt, claim, worker_id,"
            " cause) select task_id, 'FAILED', attempt, claim, worker_id, 'error' from task_events"
            " where id = {last}"
        ),
        {"two-endings", "contradiction"},
    ),
    "an attempt has no end": (
        "retries",
        ("delete from task_events where task_id = '{task}' and event_type = 'RETRIED' and attempt = 2"),
        {"no-ending"},
    ),
    "an ended task runs again": (
        "completed",
        ("update tasks set status = 'QUEUED', seq = 1, finished_at = null, worker_id = null where id = '{task}'"),
        {"contradiction"},
    ),
    "the end of a task is gone": (
        "completed",
        "delete from task_events where id = {last}",
        {"contradiction", "no-ending"},
    ),
    "a running task has ended by hand": (
        "running",
        ("update tasks set status = 'CANCELLED', claim = null, finished_at = now() where id = '{task}'"),
        {"contradiction", "no-ending"},
    ),
    "another worker ended it": (
        "completed",
        "update tasks set worker_id = gen_random_uuid() where id = '{task}'",
        {"contradiction"},
    ),
    "a cancelled task is cancelled again": (
        "cancelled",
        ("insert into task_events (task_id, event_type, attempt, cause) values ('{task}', 'CANCELLED', 1, 'cancel')"),
        {"two-endings", "contradiction"},
    ),
    "one retry too few": (
        "retried",
        (
            "delete from task_events where id = (select max(id) from task_events"
            " where task_id = '{task}' and event_type = 'REDRIVEN')"
        ),
        {"contradiction"},
    ),
    "a claim that nobody made": (
        "running",
        "update tasks set claim = gen_random_uuid() where id = '{task}'",
        {"contradiction", "no-ending"},
    ),
    "an attempt that nobody counted": (
        "retries",
        "update tasks set attempt = 2 where id = '{task}'",
        {"contradiction"},
    ),
    "two starts of one attempt": (
        "running",
        (
            "insert into task_events (task_id, event_type, attempt, claim) values"
            " ('{task}', 'STARTED', 1, gen_random_uuid())"
        ),
        {"two-starts", "no-ending"},
    ),
    "an end without a start": (
        "completed",
        ("delete from task_events where task_id = '{task}' and event_type = 'STARTED'"),
        {"no-start", "contradiction"},
    ),
    "an end without a reason": ("completed", "update task_events set cause = null where id = {last}", {"no-reason"}),
    "nobody submitted it": ("waiting", "delete from task_events where task_id = '{task}'", {"contradiction"}),
    "a task is deleted while it runs": ("running", "delete from tasks where id = '{task}'", {"no-ending"}),
    "a running task of no worker": ("running", "delete from workers", {"impossible"}),
    "a waiting task has a claim": (
        "waiting",
        "update tasks set claim = gen_random_uuid() where id = '{task}'",
        {"impossible"},
    ),
    "an ended task has a permit": ("completed", "update tasks set permit = true where id = '{task}'", {"impossible"}),
    "a queued task has no place": ("waiting", "update tasks set seq = null where id = '{task}'", {"impossible"}),
    "nothing ends what is cancelled": (
        "cancelling",
        "update tasks set cancel_deadline = null where id = '{task}'",
        {"impossible"},
    ),
}


async def test_it_finds_each_mutation_and_only_that(db: Database) -> None:
    life = await lived(db)
    for name, (victim, statement, kinds) in MUTATIONS.items():
        task = getattr(life, victim)
        async with db.connection() as tx:
            transaction = tx.transaction()
            await transaction.start()
            last = await tx.fetchval(LAST_EVENT, task)
            await tx.execute(PASS + statement.format(task=task, last=last))
            part = await queue.verify_slice(tx, queue.FIRST_ID, tasks=1000, events=1000)
            await transaction.rollback()
        others = {life.cancelling} if "no worker" in name else set()
        assert {one.kind for one in part.found} == kinds, (name, part.found)
        assert {one.id for one in part.found} == {task} | others, (name, part.found)
        assert all(one.what for one in part.found)


async def test_events_that_are_too_old_are_not_missed(db: Database) -> None:
    """Their days are dropped as a whole, so what is left of a task begins anywhere."""
    life = await lived(db)
    age = "interval '100 days'"
    await do(
        db,
        f"update tasks set created_at = created_at - {age};"
        f"update tasks set finished_at = finished_at - {age}, started_at = started_at - {age} where id ="
        f" '{life.completed}'; delete from task_events where task_id = '{life.completed}'",
    )
    assert await found(db) == set()
    async with db.connection() as tx:
        trail = await tx.fetch("select id from task_events where task_id = $1 order by created_at, id", life.retried)
    for event in trail[:-2]:  # its last end is of today, and is kept with what follows it
        await do(db, f"delete from task_events where id = {event['id']}")
        assert await found(db) == set(), event
    await do(db, f"delete from task_events where task_id = '{life.retried}'")
    assert await found(db) == {(life.retried, "contradiction")}


async def test_deleted_tasks_are_still_verified_by_their_events(db: Database) -> None:
    life = await lived(db)
    await do(db, "update tasks set finished_at = finished_at - interval '60 days' where finished_at is not null")
    async with db.begin() as tx:
        assert await queue.purge(tx) == 4
    assert await found(db, **SMALL) == set()
    await do(db, f"delete from task_events where task_id = '{life.completed}' and event_type = 'COMPLETED'")
    assert await found(db, **SMALL) == {(life.completed, "no-ending")}


async def test_a_slice_that_takes_too_long_is_read_again_and_smaller(
    database_url: str, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = await lived(db)
    asked: list[int] = []
    real = queue.verify_slice

    async def spied(tx: Any, after: UUID, *, tasks: int, events: int) -> queue.Verified:
        asked.append(tasks)
        return await real(tx, after, tasks=tasks, events=events)

    async with db.connection() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("lock table task_events in access exclusive mode")

        async def let_go(_seconds: float) -> None:
            if len(asked) == 2:
                await transaction.rollback()

        monkeypatch.setattr(queue, "verify_slice", spied)
        monkeypatch.setattr(verify.clock.system, "sleep", let_go)
        async with Database(database_url, name="tf-test", hot=False, statement_timeout="200ms") as impatient:
            parts = [part async for part in verify.slices(impatient, queue.FIRST_ID, tasks=64, events=1000)]
    assert asked[:3] == [64, 16, 4]
    assert asked[3] == 8
    assert sum(part.tasks for part in parts) == len(life) - 1


async def test_doctor_looks_at_the_newest_tasks_and_not_for_long(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    life = await lived(db)
    monkeypatch.setattr(checkup, "HISTORY_SECONDS", 1)
    async with db.connection() as tx:
        well = await checkup.history(tx)
        assert (well.ok, well.says) == (True, "the newest 8 tasks are as their events say")
        await do(db, f"update tasks set status = 'FAILED' where id = '{life.completed}'")
        ill = await checkup.history(tx)
        assert not ill.ok
        assert str(life.completed) in ill.says
        async with db.begin() as holder:
            await holder.execute("lock table task_events in access exclusive mode")
            late = await checkup.history(tx)
        assert (late.ok, late.says) == (True, "was not verified within 1 s; to verify it, run: taskflow verify")
        assert not (await checkup.history(tx)).ok  # the session goes on


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def command(*arguments: str, url: str = database_url) -> Said:
        monkeypatch.setenv("DATABASE_URL", url)
        config.reload()
        code = verify.main(arguments)
        return Said(code, *capsys.readouterr())

    return command


def planted(url: str, statement: str) -> Life:
    async def plant() -> Life:
        async with Database(url, name="tf-test") as db:
            life = await lived(db)
            await do(db, statement.format(life=life))
            return life

    return asyncio.run(plant())


def test_the_command_prints_the_ids_and_ends_with_1(run: Callable[..., Said], database_url: str) -> None:
    life = planted(
        database_url,
        "update tasks set status = 'FAILED' where id = '{life.completed}';"
        "insert into task_events (task_id, event_type, attempt, claim, worker_id, cause)"
        " select task_id, 'RELEASED', attempt, claim, worker_id, 'released' from task_events"
        " where task_id = '{life.cancelled}' and event_type = 'CANCELLED';"
        "delete from task_events where task_id = '{life.retries}' and event_type = 'RETRIED' and attempt = 2",
    )
    said = run()
    assert said.code == 1
    for task, kind in ((life.completed, "contradiction"), (life.cancelled, "two-endings"), (life.retries, "no-ending")):
        assert any(line.startswith(f"{task}  {kind} ") for line in said.out.splitlines()), said.out
    assert said.out.splitlines()[-1].startswith("verified 8 tasks and ")
    assert "3 contradictions (1 contradiction, 1 no-ending, 1 two-endings)" in said.out
    document = json.loads(run("-o", "json").out)
    assert (document["ok"], document["tasks"], len(document["found"])) == (False, 8, 3)
    last = str(max((life.completed, life.cancelled, life.retries)))
    assert last not in run("--after", last).out


def test_the_command_says_what_it_needs(run: Callable[..., Said], empty_database_url: str) -> None:
    assert run().code == 0
    away = run(url="postgresql://nobody@127.0.0.1:1/nothing")
    assert away.code == 3
    assert "check DATABASE_URL" in away.err
    empty = run(url=empty_database_url)
    assert (empty.code, empty.err) == (2, "the database has no tables of TaskFlow; run: python -m core.migrate\n")


def test_a_login_that_may_not_read_is_told_which_one_may(
    run: Callable[..., Said], postgres: Servers, database_url: str
) -> None:
    name = f"blind_{secrets.token_hex(4)}"
    _admin(postgres, f"create role {name} login")
    try:
        blind = run(url=database_url.replace("//taskflow@", f"//{name}@"))
    finally:
        _admin(postgres, f"drop role {name}")
    assert blind.code == 6
    assert "use the login of the migrations or of the API" in blind.err


def test_it_tells_how_far_it_has_come(
    run: Callable[..., Said], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(database_url, "select 1")
    monkeypatch.setattr(verify, "SLICE_TASKS", 2)
    monkeypatch.setattr(verify, "TELL_SECONDS", 0.0)
    said = run()
    assert said.code == 0
    assert len([line for line in said.err.splitlines() if line.startswith("verified ")]) > 2
