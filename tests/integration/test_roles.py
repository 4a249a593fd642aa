"""Each service's PostgreSQL role: it may do what the service does, and is refused what it must never do."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psycopg2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from core import accounts, auth, config, housekeeping, limits, lookups, migrate, roles, search
from core import queue_manager as queue
from core.domain.events import EventType
from core.domain.feeding import Ask
from core.domain.gates import GateKey
from core.domain.lifecycle import Cause
from core.domain.limits import Rate
from core.domain.ordering import PriorityType
from core.domain.task import Ending, Reason, Submission, WorkerFace
from core.sql import statement
from core.urls import for_psycopg2
from core.verbs import electing, feeding
from tests.integration.conftest import as_role, login
from tests.worker_secret import SECRET

TABLES = (
    "alembic_version", "api_keys", "function_sets", "idempotency_keys", "installation", "leader", "leases",
    "login_tries", "queue_types", "queues", "ready_floors", "task_events", "task_logs", "tasks", "users",
    "webhooks", "workers",
)  # fmt: skip
LAST_PARTITION = "select 'task_events_' || to_char((clock_timestamp() at time zone 'UTC')::date + 3, 'YYYYMMDD')"


@pytest.fixture
def url(url_with_roles: str) -> str:
    return url_with_roles


def submission(**more: Any) -> Submission:
    return Submission(id=uuid4(), owner_id=1, type="a:b", **more)


def face(worker: UUID | None = None) -> WorkerFace:
    return WorkerFace(
        id=worker or uuid4(), secret=SECRET,
        name="w", queues=("default",), sync_types=("a:b",), async_types=(), sync_slots=4,
        async_slots=0, facts={"pod": "p", "pod_uid": "u"},
    )  # fmt: skip


async def submit(url: str, count: int, **more: Any) -> list[UUID]:
    async with as_role(url, roles.API) as db, db.begin() as tx:
        await queue.ensure_queues(tx, ["default"])
        return [one.id for one in await queue.submit(tx, [submission(**more) for _ in range(count)])]


async def test_the_api_does_its_work(url: str) -> None:
    assert migrate.is_ready(login(url, roles.API))
    async with as_role(url, roles.API) as db:
        ids = await submit(url, 3)
        request = queue.KeyedRequest(owner_id=1, key="k", body_hash=b"h", submissions=[submission()])
        for outcome in (queue.KeyedOutcome.CREATED, queue.KeyedOutcome.REPLAYED):
            async with db.begin() as tx:
                assert (await queue.submit_keyed(tx, [request]))[0].outcome is outcome
        async with db.begin() as tx:
            assert await queue.find_submitted(tx, ids) == set(ids)
            assert len(await lookups.born(tx, ids)) == 3
            task = await search.get(tx, ids[0], owner_id=1)
            assert task is not None
            assert await lookups.explain(tx, task) is not None
            assert len(await search.search(tx, search.Filter(owner_id=1))) == 4
            await search.statuses(tx, ids)
            await search.events(tx, ids[0])
            await search.attempts(tx, ids[0])
            await search.logs(tx, ids[0])
            assert len(await queue.cancel(tx, ids[:1], owner_id=1, by="me")) == 1
            assert len(await queue.redrive(tx, ids[:1], owner_id=1, by="me")) == 1
            assert len(await queue.reprioritize(tx, ids, PriorityType.HIGH, owner_id=1, by="me")) == 3
            await queue.set_paused(tx, "default", paused=True)
            await queue.set_limits(tx, "default", max_concurrent=3, max_per_key=1)
            await queue.depth(tx)
            await queue.live_workers(tx)
            await queue.served_queues(tx)
            await queue.notify_wake(tx, ["default"])
        assert (await limits.Tries(db).take("auth:account:ann", Rate(5))).remaining == 4


async def test_the_api_keeps_users_and_their_keys(url: str) -> None:
    engine = create_engine(for_psycopg2(login(url, roles.API)))
    try:
        with Session(engine) as session, config.override(registration="open"):
            user = accounts.register(
                session, auth.Passwords(), username="ann", email="ann@example.org", password="correct horse"
            )
            owner = user.id
            made = accounts.create_key(session, owner_id=owner, name="k", expires_at=None)
            key, prefix = made.row.id, made.row.prefix
            session.commit()
            assert accounts.authenticate(session, auth.Passwords(), username="ann", password="correct horse")
            session.commit()
        async with as_role(url, roles.API) as db, db.begin() as tx:
            assert await tx.fetchrow(statement("credential_of_key"), prefix)
            assert await tx.fetchrow(statement("credential_of_user"), owner)
            used = await tx.fetchval("select clock_timestamp()")
            await tx.execute(statement("keys_used"), [key], [used])
        with Session(engine) as session:
            assert len(accounts.list_keys(session, owner_id=owner)) == 1
            accounts.revoke_key(session, owner_id=owner, key_id=key)
            session.commit()
    finally:
        engine.dispose()


async def test_the_worker_does_its_work(url: str) -> None:
    assert migrate.is_ready(login(url, roles.WORKER))
    ids = await submit(url, 4)
    worker, claim = uuid4(), uuid4()
    async with as_role(url, roles.WORKER) as db:
        async with db.begin() as tx:
            assert await queue.register_worker(tx, face(worker))
            assert await queue.register_worker(tx, face(worker))
            assert await queue.queue_concurrency(tx, "default") is None
            assert len(await queue.poll(tx, queues=["default"], types=["a:b"], limit=9)) == 4
            held = await queue.claim(tx, ids, worker=worker, secret=SECRET, claim=claim, types=["a:b"])
            assert len(held) == 4
            assert len(await queue.claimed_under(tx, ids, claim, worker=worker, secret=SECRET)) == 4
            await queue.unclaimed(tx, ids, ["a:b"])
        progress = [queue.Progress(id=held[0].id, attempt=1, claim=claim, fraction=0.5)]
        causes = [
            (Cause.SUCCEED, Reason.RETURNED), (Cause.RETRY, Reason.ERROR), (Cause.RELEASE, Reason.RELEASED),
            (Cause.QUARANTINE, Reason.CRASH),
        ]  # fmt: skip
        endings = [
            Ending(id=one.id, attempt=1, claim=claim, cause=cause, reason=reason, result="1", logs="hello")
            for one, (cause, reason) in zip(held, causes, strict=True)
        ]
        async with db.begin() as tx:
            assert (await queue.beat(tx, worker, secret=SECRET, free_sync=1, free_async=0)).alive
            await queue.record_progress(tx, progress)
            assert len(await queue.still_held(tx, endings)) == 4
            assert len(await queue.inventory(tx, worker, secret=SECRET)) == 4
            assert len(await queue.finish(tx, endings)) == 4
            assert len(await queue.ended_under(tx, endings)) == 4
            await queue.record_fenced(tx, endings)
            await queue.append_logs(tx, [queue.LogChunk(id=ids[0], attempt=1, claim=claim, text="more")])
        async with db.begin() as tx:
            assert await queue.drain_worker(tx, worker, secret=SECRET)
            await queue.retire_worker(tx, worker, secret=SECRET)
        connection = await db.own_connection()
        await connection.add_listener("taskflow_worker_x", print)
        await connection.close()


async def lead(tx: Any, name: str) -> int:
    """Take the lease and the epoch of `name`, as a candidate does."""
    holder = uuid4()
    assert await electing.read_lease(tx, name) is None
    assert await electing.take_lease(tx, name, holder, 0)
    assert await electing.renew_lease(tx, name, holder)
    await electing.end_leaders(tx, f"tf-{name}-nobody/")
    epoch = await queue.take_epoch(tx, holder, name=name)
    assert await electing.epoch_now(tx, name) == epoch
    await electing.release_lease(tx, name, holder)
    return epoch


async def test_the_scheduler_does_its_work(url: str) -> None:
    assert migrate.is_ready(login(url, roles.SCHEDULER))
    ids = [*await submit(url, 3), *await submit(url, 2, concurrency_key="k")]
    worker = uuid4()
    async with as_role(url, roles.WORKER) as db, db.begin() as tx:
        await queue.register_worker(tx, face(worker))
        held = await queue.claim(tx, ids, worker=worker, secret=SECRET, claim=uuid4(), types=["a:b"])
    async with as_role(url, roles.SCHEDULER) as db:
        async with db.begin() as tx:
            epoch = await lead(tx, queue.LEADER)
        async with db.begin() as tx:
            await queue.guard(tx, epoch)
            [live] = await queue.live_workers(tx)
            await feeding.queue_settings(tx)
            await feeding.last_seq(tx)
            await feeding.read_ahead(tx, [Ask(("default", "a:b", PriorityType.NORMAL), 0, 10)])
            await queue.feed(
                tx, [queue.Cursor(queue="default", type="a:b", priority=PriorityType.NORMAL, seq=0, limit=9)]
            )
            await queue.promote_due(tx)
            keys = await queue.walk_gates(tx)
            assert len(await queue.promote_gated(tx, keys, types=["a:b"])) == 1
            await queue.promote_gated(tx, [GateKey(queue="default", owner_id=1, key="x")], types=["a:b"])
            await queue.demote(tx, types=[], unannounced=True)
            await queue.regate(tx, "default")
            await queue.depth(tx)
            await queue.depth_by_priority(tx)
            found = [queue.Overdue(
                id=held[0].id, attempt=1, claim=held[0].claim, timeout_seconds=1.0, max_attempts=None, retry_count=0
            )]  # fmt: skip
            assert len(await housekeeping.end_overdue(tx, found, {(held[0].id, 1)}, rand=0.5)) == 1
            await queue.overdue(tx, grace=30.0)
            await queue.expire(tx)
            await queue.cancel_overdue(tx)
            assert await queue.mark_dead(tx, worker, live.beat_seq)
            assert len(await queue.rescue(tx)) == 2
            await queue.served_queues(tx)
            await queue.notify_wake(tx, ["default"])
        async with db.begin() as tx:
            await queue.move(tx, Cause.FORCE_CANCEL, ids, event=EventType.CANCELLED, message="test")
        owner = await asyncpg.connect(url)
        try:
            await owner.execute(
                "set local taskflow.change_ended_tasks = on;"
                "update tasks set finished_at = finished_at - interval '1 year'"
            )
            await owner.execute("update workers set beat_at = beat_at - interval '1 year'")
            await owner.execute("insert into idempotency_keys values (1, 'k', '', '[]', now() - interval '1 year')")
            last = await owner.fetchval(LAST_PARTITION)
            await owner.execute(f"drop table {last}")
        finally:
            await owner.close()
        async with db.begin() as tx:
            assert await housekeeping.keep_partitions(tx) == [last]
            assert await queue.purge(tx) == 5
            await queue.forget_workers(tx, age=60.0)
            assert await queue.live_workers(tx) == []


async def test_the_scheduler_moves_floors(url: str) -> None:
    async with as_role(url, roles.WORKER) as db, db.begin() as tx:
        await queue.register_worker(tx, face(uuid4()))
    async with as_role(url, roles.SCHEDULER) as db, db.begin() as tx:
        await queue.look_at_sequence(tx)
        assert len(await queue.raise_floors(tx, 9, step=1)) == 3
        assert len(await queue.raise_floors(tx, 9, step=0)) == 3
        assert len(await queue.floors(tx)) == 3
    await submit(url, 1)
    async with as_role(url, roles.SCHEDULER) as db, db.begin() as tx:
        assert len(await queue.lower_floors(tx)) == 1


async def test_the_operator_does_its_work(url: str) -> None:
    assert migrate.is_ready(login(url, roles.OPERATOR))
    await submit(url, 3)
    worker = uuid4()
    async with as_role(url, roles.WORKER) as db, db.begin() as tx:
        await queue.register_worker(tx, face(worker))
    settings = queue.QueueSettings(
        queue="default", paused=False, max_concurrent=2, max_per_key=1, max_attempts=3, timeout_seconds=1,
        completed_seconds=1, failed_seconds=1, concurrency=2,
    )  # fmt: skip
    source: dict[str, object] = {"namespace": "n", "name": "default", "uid": "u", "generation": 1}
    async with as_role(url, roles.OPERATOR) as db:
        async with db.begin() as tx:
            epoch = await lead(tx, queue.OPERATOR)
        async with db.begin() as tx:
            await queue.guard(tx, epoch, name=queue.OPERATOR)
            assert [one.queued for one in await queue.demand(tx)] == [3]
            assert len(await queue.pod_workers(tx)) == 1
            assert await queue.cordon(tx, [worker]) == [worker]
            assert await queue.uncordon(tx, [worker]) == [worker]
            assert await queue.note_death(tx, "u", before=None, reason="OOMKilled", message="") == 1
            assert await queue.apply_taskqueue(tx, settings, source=source)
            assert await queue.purge_queue(tx, "default") == 3
            await queue.release_taskqueue(tx, "default", "u")
        connection = await db.own_connection()
        await connection.add_listener(queue.WAKE_CHANNEL, print)
        await connection.close()


FORBIDDEN = [
    *((roles.WORKER, f"select * from {table}") for table in ("users", "api_keys", "webhooks", "idempotency_keys")),
    (roles.WORKER, "select * from leader"),
    (roles.WORKER, "update leader set epoch = 9"),
    (roles.WORKER, "select taskqueue from queues"),
    (roles.WORKER, "update queues set paused = true"),
    (roles.WORKER, "insert into tasks (id) values (gen_random_uuid())"),
    (roles.WORKER, "update tasks set payload = '{}'"),
    (roles.WORKER, "update tasks set owner_id = 1"),
    (roles.WORKER, "delete from tasks"),
    (roles.WORKER, "update task_events set message = ''"),
    (roles.WORKER, "select * from task_logs"),
    (roles.API, "update leader set epoch = 9"),
    (roles.API, "select * from leader"),
    (roles.API, "update users set is_admin = true"),
    (roles.API, "insert into users (email, username, password, is_admin) values ('a', 'a', 'a', true)"),
    (roles.API, "update api_keys set owner_id = 1"),
    (roles.API, "update workers set state = 'dead'"),
    (roles.API, "delete from tasks"),
    (roles.API, "update tasks set payload = '{}'"),
    (roles.API, "delete from task_events"),
    (roles.API, "select taskflow_ensure_partitions()"),
    *((role, "select taskflow_set_limits('default', 1, 0, 1)") for role in roles.RIGHTS if role != roles.API),
    (roles.SCHEDULER, "select * from users"),
    (roles.SCHEDULER, "select * from api_keys"),
    (roles.SCHEDULER, "select answer from idempotency_keys"),
    (roles.SCHEDULER, "select text from task_logs"),
    (roles.SCHEDULER, "insert into tasks (id) values (gen_random_uuid())"),
    (roles.SCHEDULER, "update queues set paused = true"),
    (roles.SCHEDULER, "drop table task_events_default"),
    (roles.API, "delete from login_tries"),
    (roles.WORKER, "select * from login_tries"),
    (roles.OPERATOR, "select * from users"),
    (roles.OPERATOR, "select * from api_keys"),
    (roles.OPERATOR, "delete from tasks"),
    (roles.OPERATOR, "select taskflow_ensure_partitions()"),
    *((role, "delete from leader") for role in roles.RIGHTS),
    *((role, "create table mine (id int)") for role in roles.RIGHTS),
    *((role, "select * from webhooks") for role in roles.RIGHTS),
    *((role, "update alembic_version set version_num = 'x'") for role in roles.RIGHTS),
]


def test_what_a_role_must_never_do_is_refused(url: str) -> None:
    allowed = []
    for role, text in FORBIDDEN:
        connection: Any = psycopg2.connect(login(url, role))
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
            allowed.append((role, text))
        except psycopg2.errors.InsufficientPrivilege:
            pass
        finally:
            connection.close()
    assert allowed == []


def test_giving_rights_takes_back_what_is_not_among_them(url: str) -> None:
    connection: Any = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"grant all on api_keys to {roles.WORKER}")
            assert roles.grant(url) == sorted(roles.RIGHTS)
            cursor.execute("select has_any_column_privilege(%s, 'api_keys', 'select')", (roles.WORKER,))
            assert cursor.fetchone() == (False,)
    finally:
        connection.close()


def test_every_table_has_been_thought_of(url: str) -> None:
    connection: Any = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
                " and not relispartition order by relname"
            )
            assert tuple(row[0] for row in cursor.fetchall()) == TABLES
    finally:
        connection.close()


def test_roles_that_are_not_there_are_no_error(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "RIGHTS", {"taskflow_nobody": {}})
    assert roles.grant(database_url) == []
