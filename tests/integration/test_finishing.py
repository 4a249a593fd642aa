"""Endings and claims whose answers are lost, and endings that PostgreSQL refuses: on a real one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from core import checkup, lookups
from core import queue_manager as queue
from core.domain.lifecycle import Cause
from core.domain.task import Claimed, Ending, Reason, WorkerFace
from core.errors import CommitUnknown, Unavailable
from core.pool import Database
from services.worker import finishing
from services.worker.claiming import Claimer
from services.worker.finishing import Finisher
from services.worker.holding import Holding
from services.worker.identity import Identity
from tests.lookout import happens
from tests.system.proxy import Proxy, Toxic
from tests.working import House, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TYPES = ["tests.handlers:noop"]


class Forgetful(Database):
    """Loses answers: what was committed is committed, and the caller is not told. Or never sends anything."""

    lose = 0
    away = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        if self.away:
            self.away -= 1
            raise Unavailable("as asked")
        async with super().connection() as tx:
            yield tx
        if self.lose:
            self.lose -= 1
            raise CommitUnknown("as asked")


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


@pytest.fixture
async def forgetful(database_url: str) -> AsyncIterator[Forgetful]:
    async with Forgetful(database_url, name="tf-forgetful", size=2) as database:
        yield database


async def claimed(home: House, number: int) -> list[Claimed]:
    identity = await registered(home)
    ids = await home.submit("noop", number)
    async with home.database.begin() as tx:
        return await queue.claim(tx, ids, worker=identity.id, secret=identity.secret, claim=uuid4(), types=TYPES)


async def registered(home: House) -> Identity:
    identity = Identity(lease_seconds=15)
    face = WorkerFace(
        id=identity.id,
        secret=identity.secret,
        name="w",
        queues=("default",),
        sync_types=tuple(TYPES),
        async_types=(),
        sync_slots=1,
        async_slots=0,
    )
    async with home.database.begin() as tx:
        assert await queue.register_worker(tx, face)
    return identity


def returned(task: Claimed, result: str = "1") -> Ending:
    return Ending(
        id=task.id,
        attempt=task.attempt,
        claim=task.claim,
        cause=Cause.SUCCEED,
        reason=Reason.RETURNED,
        result=result,
    )


async def finish(database: Database, endings: list[Ending]) -> Holding:
    holding = Holding()
    holding.close(endings)
    finisher = Finisher(database, holding)
    serving = asyncio.ensure_future(finisher.serve())
    finisher.put(endings)
    async with asyncio.timeout(20):
        await finisher.flushed()
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
    return holding


def kinds(events: list[tuple[str, str | None]]) -> list[str]:
    return [kind for kind, _ in events]


@pytest.mark.parametrize(("lose", "away"), [(1, 0), (3, 0), (0, 3), (2, 2)])
async def test_lost_answers_to_a_finish_fence_nobody(home: House, forgetful: Forgetful, lose: int, away: int) -> None:
    tasks = await claimed(home, 5)
    forgetful.lose, forgetful.away = lose, away
    holding = await finish(forgetful, [returned(task) for task in tasks])
    assert holding.empty
    for task in tasks:
        assert kinds(await home.events(task.id)) == ["CREATED", "STARTED", "COMPLETED"]


async def test_what_was_fenced_is_told_even_when_answers_are_lost(home: House, forgetful: Forgetful) -> None:
    tasks = await claimed(home, 4)
    async with home.database.begin() as tx:
        await queue.cancel(tx, [tasks[0].id], owner_id=None, force=True, by="test")
    forgetful.lose = 1
    await finish(forgetful, [returned(task) for task in tasks])
    assert await home.statuses([task.id for task in tasks[1:]]) == {"COMPLETED"}
    assert (await home.row(tasks[0].id))["status"] == "CANCELLED"
    assert "FENCED" in kinds(await home.events(tasks[0].id))
    for task in tasks[1:]:
        assert "FENCED" not in kinds(await home.events(task.id))


@pytest.mark.parametrize("bad", ["no json at all", '"\ud800"', "{"])
async def test_one_result_that_cannot_be_stored_fails_alone(home: House, forgetful: Forgetful, bad: str) -> None:
    tasks = await claimed(home, 21)
    endings = [returned(task) for task in tasks[:-1]]
    endings.insert(10, returned(tasks[-1], bad))
    holding = await finish(forgetful, endings)
    assert holding.empty
    row = await home.row(tasks[-1].id)
    assert (row["status"], row["retry_count"]) == ("FAILED", 1)
    assert (await home.events(tasks[-1].id))[-1] == ("FAILED", "result_rejected")
    assert await home.statuses([task.id for task in tasks[:-1]]) == {"COMPLETED"}


@asynccontextmanager
async def serving(database: Database, endings: list[Ending]) -> AsyncIterator[tuple[Finisher, Holding]]:
    """A completer that was given these endings, for as long as the block runs."""
    holding = Holding()
    holding.close(endings)
    finisher = Finisher(database, holding)
    task = asyncio.ensure_future(finisher.serve())
    finisher.put(endings)
    try:
        yield finisher, holding
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def locked(home: House, what: str, *values: Any) -> AsyncIterator[Any]:
    """Another transaction that has done this, and is open for as long as the block runs."""
    async with (
        Database(home.database._url, name="tf-locker", size=1, idle_in_transaction_session_timeout="0") as other,
        other.begin() as tx,
    ):
        await tx.execute(what, *values)
        yield tx


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, name="tf-impatient", size=2, lock_timeout="200ms") as database:
        yield database


ROW = "select from tasks where id = $1 for update"


@pytest.mark.parametrize("logs", [None, "a line\n"])
async def test_one_locked_row_delays_no_other_ending(home: House, impatient: Database, logs: str | None) -> None:
    tasks = await claimed(home, 256)
    others = [task.id for task in tasks[1:]]
    endings = [returned(task)._replace(logs=logs) for task in tasks]
    async with serving(impatient, endings) as (finisher, holding):
        async with locked(home, ROW, tasks[0].id):
            await happens(lambda: ended_all(home, others), within=5)
            await happens(lambda: answer(holding.keys() == {(tasks[0].id.bytes, 1)}))
            assert not finisher.away
            assert not finisher.idle
            more = await claimed(home, 3)  # and those that come later do not even wait for it
            holding.close([returned(task) for task in more])
            finisher.put([returned(task) for task in more])
            await happens(lambda: ended_all(home, [task.id for task in more]), within=5)
        async with asyncio.timeout(5):
            await finisher.flushed()
    assert holding.empty
    for task in (tasks[0], tasks[1], more[0]):
        assert kinds(await home.events(task.id)) == ["CREATED", "STARTED", "COMPLETED"]
    async with home.database.connection() as tx:
        assert await tx.fetchval("select count(*) from task_logs") == (256 if logs else 0)


async def ended_all(home: House, ids: list[UUID]) -> bool:
    return await home.statuses(ids) == {"COMPLETED"}


async def test_an_ending_whose_row_was_taken_under_the_lock_is_fenced(home: House, impatient: Database) -> None:
    tasks = await claimed(home, 3)
    async with serving(impatient, [returned(task)._replace(logs="a line\n") for task in tasks]) as (finisher, holding):
        async with locked(home, ROW, tasks[0].id) as tx:
            await happens(lambda: ended_all(home, [task.id for task in tasks[1:]]), within=5)
            await queue.cancel(tx, [tasks[0].id], owner_id=None, force=True, by="test")
        async with asyncio.timeout(5):
            await finisher.flushed()
    assert holding.empty
    assert sorted(kinds(await home.events(tasks[0].id))) == ["CANCELLED", "CREATED", "FENCED", "STARTED"]
    async with home.database.connection() as tx:  # and what it logged went with it
        assert await tx.fetchval("select count(*) from task_logs where task_id = $1", tasks[0].id) == 0
        assert await tx.fetchval("select count(*) from task_logs") == 2


async def test_a_locked_table_counts_as_a_postgresql_that_is_away(home: House, impatient: Database) -> None:
    tasks = await claimed(home, 3)
    async with serving(impatient, []) as (finisher, holding):
        async with locked(home, "lock table tasks in access exclusive mode"):
            holding.close([returned(task) for task in tasks])
            finisher.put([returned(task) for task in tasks])
            await happens(lambda: answer(finisher.away), within=5)
            assert not finisher.idle
        async with asyncio.timeout(10):
            await finisher.flushed()
        assert not finisher.away
    assert holding.empty
    assert await ended_all(home, [task.id for task in tasks])


async def answer(value: Any) -> Any:
    return value


# An error for which no ending is to blame, or only the one with the id in $1: PL/pgSQL's P0001 says nothing about data.
REFUSE = """
create or replace function refuse() returns trigger language plpgsql as
    $$ begin raise exception 'as asked'; end $$;
create trigger refuse before update on tasks for each row {when} execute function refuse();
"""


async def refuse(home: House, *tasks: Claimed) -> None:
    """Refuse every ending, or those of these tasks."""
    those = ", ".join(f"'{task.id}'" for task in tasks)
    async with home.database.connection() as tx:
        await tx.execute(REFUSE.format(when=f"when (old.id in ({those}))" if tasks else ""))


async def mend(home: House) -> None:
    async with home.database.connection() as tx:
        await tx.execute("drop trigger refuse on tasks")


@pytest.mark.parametrize("cause", ["missing column", "trigger"])
async def test_an_error_that_is_nobodys_fault_costs_no_ending(home: House, impatient: Database, cause: str) -> None:
    tasks = await claimed(home, 21)
    async with serving(impatient, []) as (finisher, holding):
        async with home.database.connection() as tx:
            if cause == "trigger":
                await refuse(home)
            else:
                await tx.execute("alter table tasks rename column isolation to isolated")
        holding.close([returned(task) for task in tasks])
        finisher.put([returned(task) for task in tasks[:-1]])
        await happens(lambda: answer(finisher.refusing))
        finisher.put([returned(tasks[-1])])
        assert finisher.away  # so nothing new is claimed
        assert await home.statuses([task.id for task in tasks]) == {"IN_PROGRESS"}
        async with home.database.connection() as tx:
            if cause == "trigger":
                await mend(home)
            else:
                await tx.execute("alter table tasks rename column isolated to isolation")
        async with asyncio.timeout(10):
            await finisher.flushed()
        assert not finisher.away
    assert holding.empty
    assert await ended_all(home, [task.id for task in tasks])
    assert kinds(await home.events(tasks[0].id)) == ["CREATED", "STARTED", "COMPLETED"]


async def test_endings_that_are_held_for_long_are_told_where_people_look(
    home: House, impatient: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "OVERDUE_SECONDS", 0.3)
    identity, ids, [waiting] = await registered(home), await home.submit("noop", 3), await home.submit("noop")
    tasks = await Claimer(home.database, Holding(), identity).claim(ids, TYPES)
    await refuse(home, *tasks)
    async with serving(impatient, [returned(task) for task in tasks]) as (finisher, _):
        await happens(lambda: answer(finisher.look()))
        assert (finisher.look(), finisher.refusing, finisher.useless) == (3, True, True)
        assert "holds 3 endings" in finisher.note()
        async with home.database.connection() as tx:
            for held, well, code in ((3, False, "results_held"), (0, True, "no_worker_free")):
                mine = {"secret": identity.secret, "held_endings": held}
                await queue.beat(tx, identity.id, free_sync=0, free_async=0, **mine)
                assert (await checkup.results(tx)).ok is well
                found = await lookups.explain(tx, await home.row(waiting))
                assert found is not None
                assert found.code == code
        await mend(home)
        async with asyncio.timeout(10):
            await finisher.flushed()
        assert (finisher.look(), finisher.useless, finisher.note()) == (0, False, "")


@pytest.mark.parametrize("number", [1, 2, 21])
async def test_an_ending_that_is_refused_alone_is_held_and_all_others_go_on(
    home: House, impatient: Database, number: int
) -> None:
    tasks = await claimed(home, number + 20)
    bad, later = tasks[number // 2], tasks[number:]
    await refuse(home, bad)
    async with serving(impatient, [returned(task) for task in tasks[:number]]) as (finisher, holding):
        holding.close([returned(task) for task in later])
        for task in later:  # each of them may be tried together with the bad one
            finisher.put([returned(task)])
            await happens(lambda one=task: ended_all(home, [one.id]))  # type: ignore[misc]
        others = [task.id for task in tasks if task is not bad]
        await happens(lambda: ended_all(home, others))
        assert (finisher.away, finisher.refusing, finisher.idle) == (False, False, False)
        await happens(lambda: answer(holding.keys() == {(bad.id.bytes, 1)}))
        await mend(home)
        async with asyncio.timeout(10):
            await finisher.flushed()
    assert holding.empty
    assert kinds(await home.events(bad.id)) == ["CREATED", "STARTED", "COMPLETED"]


async def test_an_ending_is_one_statement_with_its_logs_and_without_a_transaction(home: House) -> None:
    tasks = await claimed(home, 4)
    endings = [returned(task)._replace(logs="a line\n") for task in tasks]
    sent: list[str] = []
    async with home.database.connection() as tx:
        with tx.query_logger(lambda record: sent.append(record.query)):
            assert len(await queue.finish(tx, endings)) == 4
    assert len(sent) == 1


async def test_a_lost_answer_to_a_claim_is_read_back(home: House, forgetful: Forgetful) -> None:
    identity = await registered(home)
    ids = await home.submit("noop", 5)
    claimer = Claimer(forgetful, Holding(), identity)
    forgetful.lose = 2
    found = await claimer.claim(ids, TYPES)
    assert {task.id for task in found} == set(ids)
    assert {task.attempt for task in found} == {1}


# A claim that has begun waits; another session has read back in vain, more than once.
WAITS = "select count(*) from pg_stat_activity where application_name = 'tf-claims' and wait_event_type = 'Lock'"
LOOKS = """
select count(*) from pg_stat_activity
where application_name = 'tf-claims' and state = 'idle' and query like '%taskflow_claimed_under%'
  and state_change > backend_start + interval '50 ms'
"""


async def test_a_claim_that_commits_after_its_connection_broke_is_found_and_kept(home: House) -> None:
    identity, ids, holding = await registered(home), await home.submit("noop", 3), Holding()
    with Proxy(home.database._url) as proxy:
        async with Database(proxy.url, name="tf-claims", size=2) as database:
            async with locked(home, "select from workers where id = $1 for update", identity.id):
                claiming = asyncio.ensure_future(Claimer(database, holding, identity).claim(ids, TYPES))
                await happens(lambda: count(home, WAITS))
                proxy.cut()
                await happens(lambda: count(home, LOOKS))
                assert not claiming.done()
                assert await home.statuses(ids) == {"QUEUED"}
            async with asyncio.timeout(5):
                found = await claiming
    assert {task.id for task in found} == set(ids)
    assert holding.claims == set()


async def count(home: House, query: str) -> int:
    async with home.database.connection() as tx:
        return int(await tx.fetchval(query))


async def test_a_claim_that_cannot_come_any_more_is_not_waited_for(home: House) -> None:
    identity, ids = await registered(home), await home.submit("noop", 3)
    with Proxy(home.database._url) as proxy:
        armed = proxy.arm("taskflow_claim_", Toxic.REFUSE)
        async with Database(proxy.url, name="tf-claims", size=2) as database, asyncio.timeout(5):
            assert await Claimer(database, Holding(), identity).claim(ids, TYPES) == []
    assert armed.fired == 1
    assert await home.statuses(ids) == {"QUEUED"}


async def test_a_claim_under_an_id_that_was_given_up_is_dropped(home: House, forgetful: Forgetful) -> None:
    identity = await registered(home)
    ids = await home.submit("noop", 2)

    claimer = Claimer(forgetful, Holding(), identity)
    claiming = asyncio.ensure_future(claimer.claim(ids, TYPES))
    await asyncio.sleep(0)
    identity.id = UUID(int=7)
    assert await claiming == []
