"""A cordon: no claim, no restart, and not ready exactly when whoever ends this worker ends no task."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import httpx2
import pytest

from core import queue_manager as queue
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, WorkerFace
from core.errors import Unavailable
from core.pool import Database
from services.worker.cordon import Cordon
from services.worker.finishing import Finisher
from services.worker.holding import Holding
from services.worker.identity import Identity
from tests.lookout import happens
from tests.signals import until
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

HEARD = "cordoned: claiming nothing more"
RESTS = "cordoned and idle: not ready until the cordon is lifted"


class Probed(WorkerProcess):
    """A worker with a readiness probe."""

    def __init__(self, variables: dict[str, str], **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        super().__init__(variables, TASKFLOW_METRICS_PORT=str(self.port), **settings)

    def probe(self) -> int:
        return httpx2.get(f"http://127.0.0.1:{self.port}/readyz").status_code

    def started(self) -> Self:
        self.ready()
        until(lambda: self.probe() == 200)
        return self


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


@pytest.fixture
def worker(database_url: str) -> Iterator[Probed]:
    with Probed({"DATABASE_URL": database_url}) as process:
        yield process.started()


async def living(home: House) -> UUID:
    async with home.database.connection() as tx:
        found: UUID = await tx.fetchval("select id from workers where state <> 'dead'")
    return found


async def turn(home: House, *, cordoned: bool) -> list[UUID]:
    worker = await living(home)
    async with home.database.begin() as tx:
        return await (queue.cordon if cordoned else queue.uncordon)(tx, [worker])


# ── a real process ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_idle_worker_rests_and_comes_back_without_a_restart(home: House, worker: Probed) -> None:
    assert await turn(home, cordoned=True)
    until(lambda: worker.probe() == 503)
    waiting = await home.submit("noop", 3) + await home.submit("anoop", 3)
    async with home.database.connection() as tx:
        before = await tx.fetchval("select beat_seq from workers")

        async def beats_on() -> bool:
            return bool(await tx.fetchval("select beat_seq > $1 + 3 from workers", before))

        await happens(beats_on)
    assert await home.statuses(waiting) == {"QUEUED"}
    assert worker.probe() == 503
    assert await turn(home, cordoned=False)
    until(lambda: worker.probe() == 200)
    assert {row["status"] for row in await home.ended(waiting)} == {"COMPLETED"}
    assert worker.process.poll() is None


@pytest.mark.parametrize(("handler", "quick"), [("stay", "noop"), ("abide", "anoop")])
async def test_a_busy_worker_is_ready_until_its_last_end_is_recorded(
    home: House, worker: Probed, tmp_path: Path, handler: str, quick: str
) -> None:
    over = tmp_path / "over"
    running = await home.submit(handler, 2, until=str(over))
    for task in running:
        await home.becomes(task, "IN_PROGRESS")
    assert await turn(home, cordoned=True)
    until(lambda: worker.said(HEARD))
    assert worker.probe() == 200
    waiting = await home.submit(quick, 2)
    over.touch()
    until(lambda: worker.probe() == 503)
    rows = await home.rows(running)
    assert {(row["status"], row["attempt"]) for row in rows} == {("COMPLETED", 1)}
    assert await home.statuses(waiting) == {"QUEUED"}
    await turn(home, cordoned=False)
    until(lambda: worker.probe() == 200)
    await home.ended(waiting)


async def test_a_cordon_does_not_wait_for_a_beat(home: House, database_url: str) -> None:
    with Probed({"DATABASE_URL": database_url}, HEARTBEAT_INTERVAL_SECONDS="60") as worker:
        worker.started()
        listening = "select count(*) from pg_stat_activity where datname = current_database()"
        listening += " and application_name = 'tf-worker-beat'"

        async def beats() -> bool:
            async with home.database.connection() as tx:
                return bool(await tx.fetchval(listening)) and bool(await tx.fetchval("select beat_seq from workers"))

        await happens(beats)
        await turn(home, cordoned=True)
        until(lambda: worker.probe() == 503, within=20)
        await turn(home, cordoned=False)
        until(lambda: worker.probe() == 200, within=20)


# A claim that takes long, and waits for no lock: the worker's sessions give up a lock after a second.
SLOW_CLAIMS = """
create table slow (id int);
insert into slow values (1);
create function slow_claim() returns trigger language plpgsql as $$
begin
    while exists (select from slow) loop perform pg_sleep(0.02); end loop;
    return new;
end $$;
create trigger slow_claim before insert on task_events
    for each row when (new.event_type = 'STARTED') execute function slow_claim()
"""


async def test_a_claim_that_was_sent_before_the_cordon_keeps_the_worker_ready(home: House, worker: Probed) -> None:
    [task] = await home.submit("asleep", seconds=0.2, _queue="elsewhere")
    async with home.database.connection() as tx:
        await tx.execute(SLOW_CLAIMS)
        await tx.execute("update tasks set queue = 'default' where id = $1", task)
    await happens(lambda: _waits(home, "tf-worker", "Timeout"))
    cordoning = asyncio.create_task(turn(home, cordoned=True))
    await happens(lambda: _heard_or_waits(worker, home))
    for _ in range(20):
        assert worker.probe() == 200
    async with home.database.connection() as tx:
        await tx.execute("delete from slow")
    assert await cordoning
    row = (await home.ended([task]))[0]
    assert (row["status"], row["attempt"]) == ("COMPLETED", 1)
    until(lambda: worker.probe() == 503)


async def _waits(home: House, name: str, kind: str = "Lock") -> bool:
    """Whether a statement of a program waits; the transaction that has the lock would hear it once only."""
    waiting = "datname = current_database() and application_name = $1 and wait_event_type = $2 and state = 'active'"
    async with home.database.connection() as tx:
        return bool(await tx.fetchval(f"select count(*) from pg_stat_activity where {waiting}", name, kind))


async def _heard_or_waits(worker: Probed, home: House) -> bool:
    """The cordon was heard, or stands behind the claim."""
    return bool(worker.said(HEARD)) or await _waits(home, "tf-test")


async def test_an_end_that_postgresql_has_not_taken_keeps_the_worker_ready(
    home: House, worker: Probed, tmp_path: Path
) -> None:
    over = tmp_path / "over"
    [task] = await home.submit("abide", until=str(over))
    await home.becomes(task, "IN_PROGRESS")
    await turn(home, cordoned=True)
    until(lambda: worker.said(HEARD))
    async with home.database.begin() as lock:
        await lock.execute("set local idle_in_transaction_session_timeout = 0")
        await lock.execute("lock table tasks in share row exclusive mode")  # to be read, not to be written
        over.touch()
        await happens(lambda: _waits(home, "tf-worker"))  # the finish, this time
        for _ in range(20):
            assert worker.probe() == 200
    until(lambda: worker.probe() == 503)
    assert (await home.row(task))["status"] == "COMPLETED"


async def test_a_drain_is_stronger_than_a_cordon_and_than_its_end(home: House, worker: Probed, tmp_path: Path) -> None:
    over = tmp_path / "over"
    [task] = await home.submit("abide", until=str(over))
    await home.becomes(task, "IN_PROGRESS")
    await turn(home, cordoned=True)
    until(lambda: worker.said(HEARD))
    worker.signal(signal.SIGTERM)
    until(lambda: worker.said("draining"))
    assert await turn(home, cordoned=False) == []
    assert await turn(home, cordoned=True) == []
    assert worker.probe() == 200
    waiting = await home.submit("noop")
    over.touch()
    assert worker.process.wait(timeout=15) == 0
    assert await home.statuses([task]) == {"COMPLETED"}
    assert await home.statuses(waiting) == {"QUEUED"}


async def test_a_resting_worker_leaves_at_once(home: House, worker: Probed) -> None:
    await turn(home, cordoned=True)
    until(lambda: worker.probe() == 503)
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(timeout=10) == 0


@pytest.mark.parametrize("busy", [False, True])
async def test_a_cordoned_worker_that_was_declared_dead_comes_back_uncordoned(
    home: House, worker: Probed, *, busy: bool
) -> None:
    if busy:
        [task] = await home.submit("asleep", seconds=60)
        await home.becomes(task, "IN_PROGRESS")
    old = await living(home)
    await turn(home, cordoned=True)
    until(lambda: worker.said(HEARD))
    if not busy:
        until(lambda: worker.probe() == 503)
    async with home.database.connection() as tx:
        for _ in range(1000):  # it may beat in between
            if await queue.mark_dead(tx, old, await tx.fetchval("select beat_seq from workers where id = $1", old)):
                break
        await queue.rescue(tx)
        await tx.execute("delete from tasks")
    until(lambda: worker.said("goes on under a new id"), within=20)
    until(lambda: worker.probe() == 200)
    assert await living(home) != old
    await home.ended(await home.submit("noop", 4))
    assert await turn(home, cordoned=True)
    until(lambda: worker.probe() == 503)


async def test_a_restart_of_postgresql_changes_nothing_for_a_resting_worker(own_servers: Any) -> None:
    from core import embedded

    url = own_servers.database_url
    async with house(url) as home:
        with Probed({"DATABASE_URL": url}) as worker:
            worker.started()
            await turn(home, cordoned=True)
            until(lambda: worker.probe() == 503)
            embedded.restart_postgres(own_servers, mode="immediate")
            assert worker.probe() == 503

            async def beats() -> bool:
                with contextlib.suppress(Unavailable):  # connections of before the restart
                    async with home.database.connection() as tx:
                        return bool(await tx.fetchval("select beat_at > pg_postmaster_start_time() from workers"))
                return False

            await happens(beats)
            waiting = await home.submit("noop", 2)
            assert worker.probe() == 503
            assert await home.statuses(waiting) == {"QUEUED"}
            assert await turn(home, cordoned=False)
            until(lambda: worker.probe() == 200)
            await home.ended(waiting)


# ── its parts, with real stores and no process ──────────────────────────────────────────────────────────


class Inside:
    """A cordon among the parts it asks, one step at a time."""

    def __init__(self, database: Database) -> None:
        self.holding, self.identity = Holding(), Identity(lease_seconds=15)
        self.finisher = Finisher(database, self.holding)
        self.lifts = 0
        self.cordon = Cordon(database, self.identity, self.holding, self.finisher, lifted=self._lifted)

    def _lifted(self) -> None:
        self.lifts += 1

    def ending(self) -> Ending:
        return Ending(id=uuid4(), attempt=1, claim=uuid4(), cause=Cause.SUCCEED, reason=Reason.RETURNED)


@pytest.fixture
async def inside(home: House) -> AsyncIterator[Inside]:
    made = Inside(home.database)
    serving = asyncio.create_task(made.cordon.serve())
    async with home.database.begin() as tx:
        face = WorkerFace(
            id=made.identity.id,
            secret=made.identity.secret,
            name="t",
            queues=(),
            sync_types=(),
            async_types=(),
            sync_slots=1,
            async_slots=1,
        )
        assert await queue.register_worker(tx, face)
    yield made
    serving.cancel()
    await asyncio.wait([serving])


async def resting(inside: Inside) -> bool:
    return inside.cordon.resting


async def test_it_rests_only_when_every_claim_and_every_end_is_through(inside: Inside) -> None:
    token, ending = uuid4(), inside.ending()
    inside.holding.claims.add(token)
    inside.cordon.obey(cordoned=True)
    assert not inside.cordon.open
    inside.holding.close([ending])
    inside.holding.claims.discard(token)
    assert not inside.cordon.idle
    inside.finisher.put([ending])
    inside.holding.recorded([ending])
    assert not inside.cordon.idle
    assert await inside.cordon._rest() is False
    assert inside.cordon.probed()


async def test_what_postgresql_alone_knows_of_keeps_it_from_resting(home: House, inside: Inside) -> None:
    """A claim whose answer, and whose reading back, were lost: the inventory gives it back first."""
    [task] = await home.submit("noop")
    async with home.database.begin() as tx:
        [held] = await queue.claim(
            tx,
            [task],
            worker=inside.identity.id,
            secret=inside.identity.secret,
            claim=uuid4(),
            types=["tests.handlers:noop"],
        )
        await queue.cordon(tx, [inside.identity.id])
    inside.cordon.obey(cordoned=True)
    assert inside.cordon.idle
    assert await inside.cordon._rest() is False
    async with home.database.begin() as tx:
        await queue.finish(
            tx, [Ending(id=task, attempt=held.attempt, claim=held.claim, cause=Cause.RELEASE, reason=Reason.FORGOTTEN)]
        )
    await happens(lambda: resting(inside))


async def test_an_uncordon_while_postgresql_is_asked_wins(home: House, inside: Inside) -> None:
    inside.cordon.obey(cordoned=True)
    async with (
        Database(home.database._url, name="blocker", idle_in_transaction_session_timeout="0") as other,
        other.begin() as lock,
    ):
        await lock.execute("lock table tasks in access exclusive mode")
        asked = asyncio.create_task(inside.cordon._rest())
        await happens(lambda: _waits(home, "tf-test"))
        inside.cordon.obey(cordoned=False)
        inside.cordon.obey(cordoned=True)
        inside.cordon.obey(cordoned=False)
    assert await asked is False
    assert inside.cordon.open
    assert not inside.cordon.resting


async def test_after_a_rest_that_was_seen_nothing_is_claimed_before_its_end_was_seen(inside: Inside) -> None:
    inside.cordon.obey(cordoned=True)
    await happens(lambda: resting(inside))
    assert not await asyncio.to_thread(inside.cordon.probed)
    inside.cordon.obey(cordoned=False)
    assert (inside.cordon.open, inside.lifts) == (False, 0)
    assert await asyncio.to_thread(inside.cordon.probed)
    assert inside.cordon.open

    async def told() -> bool:
        return inside.lifts == 1

    await happens(told)


async def test_after_a_rest_that_nobody_saw_claims_begin_at_once(inside: Inside) -> None:
    inside.cordon.obey(cordoned=True)
    await happens(lambda: resting(inside))
    inside.cordon.obey(cordoned=False)
    assert (inside.cordon.open, inside.lifts) == (True, 1)
