"""The workers' role: it calls its functions, reads no table, and ends nothing that another worker holds."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import psycopg2
import pytest
from alembic import command

from core import functions, migrate, roles, sql
from core import queue_manager as queue
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, Submission, WorkerFace
from core.errors import Conflict
from core.roles import WorkerRights
from tests.integration.conftest import as_role, login
from tests.integration.test_roles import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = ["a:b"]
UUIDS = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
# Our own, and those of the catalogue that show what is in tables or what sessions do.
RELATIONS = """
select oid::regclass::text from pg_class
where relkind in ('r', 'p', 'v', 'm')
  and (relnamespace = 'public'::regnamespace
       or relnamespace = 'pg_catalog'::regnamespace
          and relname ~ '^pg_(stat|locks|prepared|cursors|largeobject|replication)')
order by 1
"""
CALLABLE = """
select proname from pg_proc
where pronamespace = 'public'::regnamespace and has_function_privilege('taskflow_worker', oid, 'execute') order by 1
"""
RIGHTS = ("select", "insert", "update", "references")


def face(worker: UUID, secret: UUID) -> WorkerFace:
    return WorkerFace(
        id=worker,
        secret=secret,
        name="w",
        queues=("default",),
        sync_types=("a:b",),
        async_types=(),
        sync_slots=4,
        async_slots=0,
    )


async def submitted(url: str, number: int) -> list[UUID]:
    async with as_role(url, roles.API) as db, db.begin() as tx:
        await queue.ensure_queues(tx, ["default"])
        asked = [Submission(id=uuid4(), owner_id=1, type="a:b", payload='{"secret": 1}') for _ in range(number)]
        return [one.id for one in await queue.submit(tx, asked)]


@contextmanager
def owner(url: str) -> Iterator[Any]:
    connection: Any = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def asked(url: str, text: str, *values: Any) -> Any:
    with owner(url) as cursor:
        cursor.execute(text, values)
        return cursor.fetchone()[0]


def refused(url: str, text: str) -> bool:
    """Whether the role may not run `text`."""
    with owner(login(url, roles.WORKER)) as cursor:
        try:
            cursor.execute(text)
        except psycopg2.errors.InsufficientPrivilege:
            return True
    return False


def test_the_role_has_its_functions_and_nothing_else(url_with_roles: str) -> None:
    had = [
        (table, right)
        for table in TABLES
        for right in RIGHTS
        if asked(url_with_roles, "select has_any_column_privilege('taskflow_worker', %s, %s)", table, right)
    ]
    had += [
        (table, right)
        for table in TABLES
        for right in ("delete", "truncate", "trigger")
        if asked(url_with_roles, "select has_table_privilege('taskflow_worker', %s, %s)", table, right)
    ]
    assert had == []
    for sequence in ("task_seq", "task_event_seq"):
        assert refused(url_with_roles, f"select nextval('{sequence}')")
    assert refused(url_with_roles, "select * from tasks")
    assert refused(url_with_roles, "select id, state from workers")
    assert refused(url_with_roles, "update tasks set status = 'COMPLETED'")
    assert refused(url_with_roles, "insert into task_events (task_id, event_type) values (gen_random_uuid(), 'FENCED')")
    with owner(url_with_roles) as cursor:
        cursor.execute(CALLABLE)
        assert [row[0] for row in cursor.fetchall()] == sorted(map(sql.function_name, sql.WORKER_FUNCTIONS))
        cursor.execute(
            "select proname from pg_proc where proname like %s and"
            " (not prosecdef or proconfig <> '{\"search_path=pg_catalog, public, pg_temp\"}')",
            (f"taskflow_%_{sql.digest()}",),
        )
        assert cursor.fetchall() == []


def test_nobody_else_may_call_them(url_with_roles: str) -> None:
    for role in roles.RIGHTS.keys() - {roles.WORKER}:
        with owner(login(url_with_roles, role)) as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(
                f"select * from {sql.function_name('poll')}('{{}}', '{{}}', 1, '{{}}', '{{}}', '{{}}', '{{}}')"
            )


async def everything_readable(db: Any) -> str:
    """All that the role is shown: of the catalogue, of its own tables, of the sessions of other workers."""
    seen: list[str] = []
    async with db.connection() as tx:
        for relation in [row[0] for row in await tx.fetch(RELATIONS)]:
            try:
                rows = await tx.fetch(f"select said::text from {relation} as said limit 20000")
            except asyncpg.PostgresError:
                continue
            seen += [row[0] or "" for row in rows]
    return "\n".join(seen)


async def test_what_another_worker_holds_cannot_be_ended_with_all_that_the_role_can_read(url_with_roles: str) -> None:
    """The intruder knows the ids of the tasks and of their worker, and runs whatever the role may run."""
    ids = await submitted(url_with_roles, 3)
    victim, secret, claim = uuid4(), uuid4(), uuid4()
    intruder, own = uuid4(), uuid4()
    async with as_role(url_with_roles, roles.WORKER) as busy, as_role(url_with_roles, roles.WORKER) as db:
        async with busy.connection() as tx:
            await queue.register_worker(tx, face(victim, secret))
            assert len(await queue.claim(tx, ids, worker=victim, secret=secret, claim=claim, types=TYPES)) == 3
        told = await everything_readable(db)
        async with db.connection() as tx:
            assert not await queue.register_worker(tx, face(victim, own))
            assert await queue.register_worker(tx, face(intruder, own))
            told += repr(await queue.poll(tx, queues=["default"], types=TYPES, limit=100))
            told += repr(await queue.unclaimed(tx, ids, TYPES))
            for guess in (own, intruder, victim, UUID(int=0)):
                assert await queue.inventory(tx, victim, secret=guess) == []
                assert await queue.claimed_under(tx, ids, claim, worker=victim, secret=guess) == []
                assert await queue.claim(tx, ids, worker=victim, secret=guess, claim=uuid4(), types=TYPES) == []
                assert not (await queue.beat(tx, victim, secret=guess, free_sync=1, free_async=0)).alive
                assert not await queue.drain_worker(tx, victim, secret=guess)
            assert await queue.inventory(tx, intruder, secret=own) == []
            found = {UUID(each) for each in UUIDS.findall(told)} | {victim, intruder, own, *ids}
            assert claim not in found
            assert secret not in found
            for guess in found:
                forged = [Ending(one, 1, guess, Cause.SUCCEED, Reason.RETURNED, '"forged"') for one in ids]
                assert await queue.finish(tx, forged) == []
                assert await queue.finish(tx, forged, skip_locked=True) == []
                assert await queue.ended_under(tx, forged) == set()
                await queue.append_logs(tx, [queue.LogChunk(id=ids[0], attempt=1, claim=guess, text="forged")])
        async with busy.connection() as tx:
            mine = [Ending(one, 1, claim, Cause.SUCCEED, Reason.RETURNED, '"true"') for one in ids]
            assert len(await queue.finish(tx, mine)) == 3
    assert asked(url_with_roles, "select array_agg(distinct result::text) from tasks") == ['"true"']
    assert asked(url_with_roles, "select count(*) from task_logs") == 0


async def test_the_second_step_is_refused_while_an_older_worker_lives(url_with_roles: str) -> None:
    url = url_with_roles
    roles.set_worker_rights(url, WorkerRights.TABLES)
    assert not refused(url, "select * from tasks")
    assert not refused(
        url,
        "insert into workers (id, name, queues, sync_types, async_types, sync_slots, async_slots)"
        " values (gen_random_uuid(), 'an older one', '{}', '{}', '{}', 1, 0)",
    )
    with pytest.raises(Conflict, match="an older one"):
        roles.set_worker_rights(url, WorkerRights.FUNCTIONS)
    roles.grant(url)  # as every core.migrate does: it leaves the step where it is
    assert not refused(url, "select * from tasks")
    with owner(url) as cursor:
        cursor.execute("update workers set state = 'dead'")
    async with as_role(url, roles.WORKER) as db, db.connection() as tx:
        assert await queue.register_worker(tx, face(uuid4(), uuid4()))
    roles.set_worker_rights(url, WorkerRights.FUNCTIONS)
    roles.grant(url)
    assert refused(url, "select * from tasks")
    roles.set_worker_rights(url, WorkerRights.TABLES)
    assert not refused(url, "select * from tasks")


def test_the_command_takes_the_step(
    url_with_roles: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", url_with_roles)
    assert migrate.main(["--worker-rights", "tables"]) == 0
    assert capsys.readouterr().err == "taskflow_worker has its tables\n"
    assert not refused(url_with_roles, "select * from tasks")
    assert migrate.main(["--worker-rights", "functions"]) == 0
    assert refused(url_with_roles, "select * from tasks")


def test_only_an_installation_that_begins_here_takes_the_step_by_itself(empty_database_url: str) -> None:
    said = "select value from installation where name = 'worker_rights'"
    command.upgrade(migrate.config(empty_database_url), "0006")
    migrate.upgrade(empty_database_url)
    assert asked(empty_database_url, said) == "tables"


def test_an_installation_that_begins_here_takes_it(database_url: str) -> None:
    assert asked(database_url, "select value from installation where name = 'worker_rights'") == "functions"


def test_functions_go_a_day_after_their_last_worker(database_url: str) -> None:
    old = "0123456789abcdef"
    lives = "select count(*) from pg_proc where proname = %s"
    name = sql.function_name("inventory", old)
    with owner(database_url) as cursor:
        cursor.execute(f"create function {name}(uuid, uuid) returns void language sql as ''")
        cursor.execute("insert into function_sets (digest, made_at) values (%s, now() - interval '2 days')", (old,))
        cursor.execute(
            "insert into workers (id, name, queues, sync_types, async_types, sync_slots, async_slots, functions)"
            " values (gen_random_uuid(), 'w', '{}', '{}', '{}', 1, 0, %s)",
            (old,),
        )
        cursor.execute("update workers set beat_at = now() - interval '3 days'")
        functions.make(database_url, role=roles.WORKER)
        assert asked(database_url, lives, name) == 1  # its worker is not dead
        cursor.execute("update workers set state = 'dead', beat_at = now() - interval '23 hours'")
        functions.make(database_url, role=roles.WORKER)
        assert asked(database_url, lives, name) == 1
        cursor.execute("update workers set beat_at = now() - interval '25 hours'")
        functions.make(database_url, role=roles.WORKER)
        assert asked(database_url, lives, name) == 0
        cursor.execute("select digest from function_sets")
        assert cursor.fetchall() == [(sql.digest(),)]
