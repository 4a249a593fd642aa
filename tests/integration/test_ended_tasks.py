"""A task that has ended stays as it is: a trigger refuses every change except a retry, whoever asks."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from core import config, faults, roles
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.lifecycle import ENDED
from core.pool import unavailable
from core.references import References
from core.urls import plain
from services.scheduler.ticks import cancels, due, expire, gates, overdue, rescue, sweep, watch
from tests.conftest import _admin
from tests.leading import OwnClock, leading
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.embedded import Servers

REFUSED = "TF001"
STATUSES = sorted(ENDED)
PASS = "set local taskflow.change_ended_tasks = on"
ALL = "select id, status::text as status, tasks::text as everything from tasks order by id"
# An ended row with everything on it that a duty of the leader looks for in another one.
TEMPTING = """
insert into tasks (id, seq, owner_id, type, queue, concurrency_key, payload, payload_bytes, status, gated, permit,
                   attempt, claim, worker_id, started_at, timeout_seconds, expires_at, scheduled_at, cancel_deadline,
                   finished_at)
select gen_random_uuid(), n, 1, 'a:b', 'default', 'key', '{}', 2, status, true, true, 1, gen_random_uuid(), $1,
       clock_timestamp() - interval '1 hour', 1, clock_timestamp() - interval '1 hour',
       clock_timestamp() - interval '1 hour', clock_timestamp() - interval '1 hour', clock_timestamp()
from unnest($2::text[]::task_status[]) with ordinality as ended (status, n)
"""
CHANGES = {
    "its status": "status = 'QUEUED'",
    "another end": "status = case status when 'FAILED' then 'CANCELLED'::task_status else 'FAILED' end",
    "its result": "result = '\"forged\"'",
    "its error": "error = '{}'",
    "its attempt": "attempt = attempt + 1",
    "its progress": "progress = '1'",
    "its time": "updated_at = clock_timestamp()",
    "nothing": "id = id",
    "a retry that starts it": "status = 'IN_PROGRESS', generation = generation + 1, claim = gen_random_uuid(),"
    " worker_id = gen_random_uuid()",
    "a retry that counts wrongly": "status = 'QUEUED', generation = generation + 2, claim = null",
    "a retry that sets the fence back": "status = 'QUEUED', generation = generation + 1, claim = null, attempt = 0",
    "a retry for another owner": "status = 'PENDING', generation = generation + 1, claim = null, owner_id = 2",
}


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(plain(database_url))
    try:
        yield connection
    finally:
        await connection.close()


async def plant(connection: Any, worker: UUID | None = None) -> list[Any]:
    await connection.execute(TEMPTING, worker or uuid4(), STATUSES)
    return list(await connection.fetch(ALL))


async def refused(connection: Any, change: str, task: UUID) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.PostgresError) as told:
        await connection.execute(f"update tasks set {change} where id = $1", task)
    assert told.value.sqlstate == REFUSED
    return told.value


async def test_an_ended_task_cannot_change(owner: Any) -> None:
    before = await plant(owner)
    for change in CHANGES.values():
        for row in before:
            await refused(owner, change, row["id"])
        assert await owner.fetch(ALL) == before, change


async def test_a_retry_is_the_only_way_back_and_success_is_final(owner: Any) -> None:
    before = await plant(owner)
    moved = await queue.redrive(owner, [row["id"] for row in before], owner_id=1, by="me")
    assert len(moved) == len(ENDED) - 1
    [completed] = [row for row in before if row["status"] == "COMPLETED"]
    assert completed in await owner.fetch(ALL)
    retry = "status = 'QUEUED', generation = generation + 1, claim = null"
    await refused(owner, retry, completed["id"])
    await plant(owner)
    [failed] = await owner.fetch("select id from tasks where status = 'FAILED'")
    await owner.execute(f"update tasks set {retry} where id = $1", failed["id"])


async def test_the_error_blames_neither_the_data_nor_postgresql_and_says_what_to_do(owner: Any) -> None:
    [first, *_] = await plant(owner)
    error = await refused(owner, "error = '{}'", first["id"])
    assert not faults.rejected(error)
    assert not unavailable(error)
    assert str(first["id"]) in str(error)
    assert getattr(error, "table_name", None) == "tasks"
    assert getattr(error, "hint", "").startswith("Only a retry changes an ended task.")


async def test_a_migration_passes_by_a_setting_that_ends_with_its_transaction(owner: Any) -> None:
    [first, *_] = await plant(owner)
    async with owner.transaction():
        await owner.execute(PASS)
        await owner.execute("update tasks set error = '{}' where id = $1", first["id"])
    await refused(owner, "error = null", first["id"])


@asynccontextmanager
async def stranger(servers: Servers, url: str, owner: Any) -> AsyncIterator[Any]:
    """A login that may update tasks and call a function of their owner, and owns nothing."""
    name, password = f"stranger_{secrets.token_hex(4)}", secrets.token_hex(8)
    _admin(servers, f"create role {name} login password '{password}'")
    await owner.execute(f"grant select, update on tasks to {name}")
    connection = await asyncpg.connect(plain(url), user=name, password=password)
    try:
        yield connection
    finally:
        await connection.close()
        await owner.execute(f"drop owned by {name}")
        _admin(servers, f"drop role {name}")


async def test_nobody_but_the_owner_passes_not_even_inside_the_owners_function(
    postgres: Servers, database_url: str, owner: Any
) -> None:
    [first, *_] = await plant(owner)
    await owner.execute(
        "create function forge(task uuid) returns void language sql security definer as"
        " $$ update tasks set result = '1' where id = task $$"
    )

    async def try_to_pass(other: Any, statement: str) -> None:
        async with other.transaction():
            await other.execute(PASS)
            await other.execute(statement, first["id"])

    async with stranger(postgres, database_url, owner) as other:
        for statement in ("update tasks set result = '1' where id = $1", "select forge($1)"):
            with pytest.raises(asyncpg.PostgresError) as told:
                await try_to_pass(other, statement)
            assert told.value.sqlstate == REFUSED
    await try_to_pass(owner, "select forge($1)")


async def test_no_service_passes_with_its_own_role(owner: Any) -> None:
    assert not await owner.fetch(
        "select rolname from pg_roles join pg_class on relname = 'tasks' and relnamespace = 'public'::regnamespace"
        " where rolname = any ($1::text[]) and pg_has_role(pg_roles.oid, relowner, 'usage')",
        list(roles.RIGHTS),
    )


async def test_no_duty_of_the_leader_and_no_beat_meets_the_trigger(
    environment: dict[str, str], owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One refused row would fail its whole statement, and with it the duty for all other tasks."""
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    url = environment["DATABASE_URL"]
    worker = uuid4()
    await owner.execute(
        "insert into workers (id, name, queues, sync_types, async_types, sync_slots, async_slots, state)"
        " values ($1, 'w', '{default}', '{a:b}', '{}', 1, 0, 'dead')",
        worker,
    )
    await owner.execute("insert into queues (name, max_concurrent) values ('default', 1)")
    before = await plant(owner, worker)
    claims = {row["id"]: row["claim"] for row in await owner.fetch("select id, claim from tasks")}
    async with References() as none, leading(url, none, OwnClock()) as ctx:
        await watch.tick(ctx)
        for tick in (rescue.tick, rescue.strays, due.tick, expire.tick, cancels.tick, overdue.tick, sweep.tick,
                     gates.tick):  # fmt: skip
            assert await tick(ctx) == 0
    ids = sorted(claims)
    async with Database(url, name="tf-test") as db, db.begin() as tx:
        progress = [queue.Progress(id=one, attempt=1, claim=claims[one], fraction=0.5) for one in ids]
        await queue.record_progress(tx, progress)
        await queue.beat(tx, worker, secret=SECRET, free_sync=0, free_async=0)
        assert await queue.promote_gated(tx, [GateKey(queue="default", owner_id=1, key="key")], types=["a:b"]) == []
        assert await queue.regate(tx, "default") == 0
        assert await queue.cancel(tx, ids, owner_id=None, by="me") == []
        assert await queue.cancel(tx, ids, owner_id=None, by="me", force=True) == []
    assert await owner.fetch(ALL) == before
