"""Migrations: from nothing to the newest schema and back, on empty and on filled databases, and never waiting long."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

from core import config, database, migrate
from core import queue_manager as queue
from core.auth import Passwords
from core.database import Database
from core.models import Base, EventType, PriorityType, TaskStatus
from core.sql import statement
from core.urls import for_psycopg2
from core.verbs.keeping import DAYS_AHEAD, EVENT_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = """
select table_name, column_name, data_type, udt_name, is_nullable, column_default, is_identity
from information_schema.columns where table_schema = 'public' and table_name not like 'task_events\\_%'
and table_name <> 'alembic_version' order by table_name, column_name
"""
INDEXES = """
select tablename, regexp_replace(indexdef, ' ON ONLY ', ' ON ') as definition from pg_indexes
where schemaname = 'public' and tablename not like 'task_events\\_%' and tablename <> 'alembic_version'
order by tablename, indexdef
"""
STORAGE = """
select relname, array(select unnest(reloptions) order by 1) from pg_class
where relnamespace = 'public'::regnamespace and relkind = 'r' and relname not like 'task_events\\_%'
and relname <> 'alembic_version' order by relname
"""
CONSTRAINTS = """
select relname, conname, convalidated, pg_get_constraintdef(pg_constraint.oid) from pg_constraint
join pg_class on pg_class.oid = conrelid
where contype = 'c' and relnamespace = 'public'::regnamespace order by relname, conname
"""
TRIGGERS = "select tgname, tgenabled, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal order by tgname"
FUNCTIONS = """
select proname, pg_get_functiondef(oid), proacl::text from pg_proc where pronamespace = 'public'::regnamespace
order by proname
"""
SEQUENCES = "select sequencename, cache_size from pg_sequences where schemaname = 'public' order by 1"
ENUMS = """
select typname, array_agg(enumlabel::text order by enumsortorder) from pg_enum join pg_type on pg_type.oid = enumtypid
group by pg_type.oid, typname order by typname
"""
FILL = """
insert into users (email, username, password) values ('a@example.org', 'a', '-');
insert into api_keys (prefix, hash, owner_id) values ('abc', '\\x00', 1);
insert into webhooks (owner_id, url, secret) values (1, 'https://example.org', '-');
insert into queues (name) values ('default');
insert into workers (id, name, queues, sync_types, async_types, sync_slots, async_slots)
values (gen_random_uuid(), 'w', '{default}', '{a:b}', '{}', 1, 0);
update workers set death = '{"reason": "OOMKilled"}', functions = 'f', secret_hash = '\\x00';
update queues set default_max_attempts = 5, default_timeout_seconds = 1.5, concurrency = 2, taskqueue = '{"uid": "u"}';
insert into queue_types (queue, types) values ('default', '{a:b}');
insert into leader (name, epoch) values ('scheduler', 7);
insert into ready_floors (queue, type, priority, seq) values ('default', 'a:b', 'HIGH', 7);
insert into leases (name) values ('scheduler');
insert into idempotency_keys (owner_id, key, body_hash, answer) values (1, 'k', '\\x00', '[]');
insert into login_tries (key, whole_at) values ('k', now());
insert into tasks (id, owner_id, type, queue, payload, payload_bytes, status, worker_id, claim)
select gen_random_uuid(), 1, 'a:b', 'default', '{}', 2, status, gen_random_uuid(), gen_random_uuid()
from unnest(enum_range(null::task_status)) as status, generate_series(1, 100);
insert into task_events (task_id, event_type) select id, kind from tasks, unnest(enum_range(null::event_type)) as kind;
insert into task_logs (task_id, attempt, text) select id, 1, 'hello' from tasks
"""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(for_psycopg2(url))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def tables(url: str) -> set[str]:
    with connected(url) as connection:
        return set(connection.scalars(text("select tablename from pg_tables where schemaname = 'public'")))


def fill(url: str) -> None:
    with connected(url) as connection:
        connection.exec_driver_sql(FILL)
        connection.commit()


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
def test_up_down_up(empty_database_url: str, *, filled: bool) -> None:
    url = empty_database_url
    assert not migrate.is_ready(url)
    migrate.upgrade(url)
    assert migrate.is_ready(url)
    first = described(url)
    if filled:
        fill(url)
    migrate.downgrade(url, "base")
    assert tables(url) == {"alembic_version"}
    with connected(url) as connection:
        assert connection.execute(text(ENUMS)).all() == []
        assert connection.execute(text(FUNCTIONS)).all() == []
        assert connection.execute(text(SEQUENCES)).all() == []
    migrate.upgrade(url)
    assert described(url) == first
    fill(url)


def test_a_second_upgrade_changes_nothing(database_url: str) -> None:
    before = described(database_url)
    migrate.upgrade(database_url)
    assert described(database_url) == before


def described(url: str) -> dict[str, list[Any]]:
    with connected(url) as connection:
        return {
            name: [tuple(row) for row in connection.execute(text(query))]
            for name, query in {
                "columns": COLUMNS, "indexes": INDEXES, "storage": STORAGE, "sequences": SEQUENCES, "enums": ENUMS,
                "constraints": CONSTRAINTS, "triggers": TRIGGERS, "functions": FUNCTIONS,
            }.items()
        }  # fmt: skip


def test_models_and_migrations_agree(database_url: str) -> None:
    def is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compared: Any) -> bool:  # noqa: FBT001 - Alembic's
        return not (kind == "table" and name is not None and name.startswith("task_events_"))

    with connected(database_url) as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_models_make_the_very_same_schema(database_url: str, empty_database_url: str) -> None:
    # What Alembic does not compare: predicates of indexes, defaults, storage parameters.
    with connected(empty_database_url) as connection:
        Base.metadata.create_all(connection)
        connection.commit()
    made, migrated = described(empty_database_url), described(database_url)
    for name, rows in made.items():
        assert rows == migrated[name] or name in {"triggers", "functions"}, name


def test_enums_are_made_once_with_the_labels_of_the_code(database_url: str) -> None:
    with connected(database_url) as connection:
        enums = [tuple(row) for row in connection.execute(text(ENUMS))]
    assert enums == [
        ("event_type", [label.value for label in EventType]),
        ("priority_type", [label.value for label in PriorityType]),
        ("task_status", [label.value for label in TaskStatus]),
    ]


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database_url}
    started = [
        subprocess.Popen([sys.executable, "-m", "core.migrate"], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert migrate.is_ready(empty_database_url)


def test_who_waits_for_another_to_migrate_can_end_it(empty_database_url: str) -> None:
    looks = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise InterruptedError

    with connected(empty_database_url) as other:
        other.execute(text("select pg_advisory_lock(29798, 9)"))
        with pytest.raises(InterruptedError):
            migrate.upgrade(empty_database_url, meanwhile=look)
    assert tables(empty_database_url) == set()


def test_a_migration_behind_a_lock_gives_up_and_can_be_repeated(database_url: str) -> None:
    fill(database_url)
    impatient = migrate.config(database_url)
    impatient.attributes["lock_timeout"] = "100ms"
    command.downgrade(migrate.config(database_url), "0002")  # what came later does not touch tasks
    before = described(database_url)
    with connected(database_url) as holder:
        holder.execute(text("lock table tasks in access exclusive mode"))
        with pytest.raises(OperationalError, match="lock timeout"):
            command.downgrade(impatient, "base")
        holder.rollback()
    assert described(database_url) == before  # nothing was half done
    command.downgrade(migrate.config(database_url), "base")
    assert tables(database_url) == {"alembic_version"}


def test_the_command_says_in_one_line_that_it_met_a_lock(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    patient = migrate.config

    def impatient(url: str) -> Any:
        made = patient(url)
        made.attributes["lock_timeout"] = "100ms"
        return made

    monkeypatch.setattr(migrate, "config", impatient)
    with connected(database_url) as holder:
        holder.execute(text("lock table alembic_version in access exclusive mode"))
        assert migrate.main() == 1
    said = capsys.readouterr().err
    assert "the migrations did not run" in said
    assert "lock timeout" in said
    assert migrate.main() == 0


def test_a_database_ahead_of_this_code_counts_as_ready(database_url: str) -> None:
    with connected(database_url) as connection:
        connection.execute(text("update alembic_version set version_num = 'made_by_newer_code'"))
        connection.commit()
    assert migrate.is_ready(database_url)


def test_the_command_leaves_a_database_ahead_of_this_code_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the Job of a `helm rollback` does."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    with connected(database_url) as connection:
        connection.execute(text("update alembic_version set version_num = 'made_by_newer_code'"))
        connection.commit()
    assert migrate.main() == 0
    said = capsys.readouterr().err
    assert said == "the schema is made_by_newer_code, made by newer code: it stays as it is\n"
    assert migrate.current(database_url) == "made_by_newer_code"


def partitions(days: set[date]) -> set[str]:
    return {f"task_events_{day:%Y%m%d}" for day in days}


async def test_partitions_come_and_go(database_url: str) -> None:
    async with Database(database_url, name="test") as db:
        async with db.connection() as tx:
            today = await tx.fetchval("select (clock_timestamp() at time zone 'UTC')::date")
            ahead = {today + timedelta(days=number) for number in range(DAYS_AHEAD + 1)}
            gone = {today + timedelta(days=2), today + timedelta(days=DAYS_AHEAD)}
            for name in partitions(gone):
                await tx.execute(f"drop table {name}")
            old, kept = today - timedelta(days=EVENT_DAYS + 1), today - timedelta(days=EVENT_DAYS)
            for day in (old, kept):
                await tx.execute(
                    f"create table task_events_{day:%Y%m%d} partition of task_events"
                    f" for values from ('{day}') to ('{day + timedelta(days=1)}')"
                )
        async with db.begin() as tx:
            assert set(await queue.ensure_partitions(tx)) == partitions(gone) | partitions({old})
        async with db.begin() as tx:
            assert await queue.ensure_partitions(tx) == []
            names = await tx.fetch("select inhrelid::regclass::text as name from pg_inherits")
            assert partitions(ahead | {kept}) <= {row["name"] for row in names}


async def test_events_that_came_before_their_partition_move_into_it(database_url: str) -> None:
    async with Database(database_url, name="test") as db:
        async with db.begin() as tx:
            today = await tx.fetchval("select (clock_timestamp() at time zone 'UTC')::date")
            [name] = partitions({today})
            await tx.execute(f"drop table {name}")
            noon = datetime.combine(today, time(12), UTC)
            for moment in (noon, noon + timedelta(days=400)):
                await tx.execute(
                    "insert into task_events (task_id, event_type, created_at)"
                    " values (gen_random_uuid(), 'CREATED', $1)",
                    moment,
                )
        async with db.begin() as tx:
            assert await queue.ensure_partitions(tx) == [name]
            homes = await tx.fetch("select tableoid::regclass::text as home from task_events order by created_at")
            assert [row["home"] for row in homes] == [name, "task_events_default"]


def test_waiting_ends_when_the_migrations_have_run(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    assert migrate.main(["--wait", "--seconds", "0"]) == 1
    assert "not ready within 0 s: the migrations have not run" in capsys.readouterr().err
    environment = {**os.environ, "DATABASE_URL": empty_database_url}
    with subprocess.Popen(
        [sys.executable, "-m", "core.migrate", "--wait"], env=environment, stderr=subprocess.PIPE
    ) as it:
        assert it.stderr is not None
        assert b"waiting, 0 of 600 s: the migrations have not run" in it.stderr.readline()
        migrate.upgrade(empty_database_url)
        assert it.wait(30) == 0


def test_waiting_goes_on_while_postgresql_is_away_and_names_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert migrate.main(["--wait", "--seconds", "0.1"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("waiting, 0 of 0 s: connection to server")
    assert said[-1].startswith("not ready within")
    monkeypatch.delenv("DATABASE_URL")
    config.reload()
    assert migrate.main(["--wait"]) == 2


def test_waiting_needs_nothing_of_the_api(database_url: str) -> None:
    code = (
        "import sys; sys.modules['argon2'] = sys.modules['jwt'] = None\n"
        "from core import migrate; sys.exit(migrate.main(['--wait', '--seconds', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "DATABASE_URL": database_url}, check=False)
    assert done.returncode == 0


KEY = f"tf_{'a' * 12}_{'k' * 43}"


def test_the_migrations_make_the_installations_administrator_once(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("DATABASE_URL", empty_database_url),
        ("TASKFLOW_ADMIN_USERNAME", "root"),
        ("TASKFLOW_ADMIN_PASSWORD", "correct horse"),
        ("TASKFLOW_ADMIN_API_KEY", KEY),
    ):
        monkeypatch.setenv(name, value)

    def rows() -> tuple[list[Any], list[Any]]:
        with connected(empty_database_url) as connection:
            users = connection.execute(text("select username, password, is_admin from users")).all()
            keys = connection.execute(text("select prefix, is_active from api_keys order by id")).all()
        return [tuple(row) for row in users], [tuple(row) for row in keys]

    with sessions():
        assert migrate.main() == 0
        first = rows()
        [(username, password, is_admin)], keys = first
        assert (username, is_admin, keys) == ("root", True, [("a" * 12, True)])
        assert Passwords().verify(password, "correct horse")
        capsys.readouterr()
        assert migrate.main() == 0
        assert rows() == first
        assert capsys.readouterr().err == ""

        monkeypatch.setenv("TASKFLOW_ADMIN_PASSWORD", "battery staple")
        monkeypatch.setenv("TASKFLOW_ADMIN_API_KEY", f"tf_{'b' * 12}_{'k' * 43}")
        config.reload()
        assert migrate.main() == 0
        [(_, password, _)], keys = rows()
        assert Passwords().verify(password, "battery staple")
        assert keys == [("a" * 12, False), ("b" * 12, True)]


def test_nobody_becomes_administrator_by_having_had_the_name(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("TASKFLOW_ADMIN_USERNAME", "a")
    monkeypatch.setenv("TASKFLOW_ADMIN_PASSWORD", "correct horse")
    with connected(database_url) as connection:
        connection.execute(text("insert into users (email, username, password) values ('a@example.org', 'a', '-')"))
        connection.commit()
    with sessions():
        assert migrate.main() == 1
    assert "is no administrator" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"), [("TASKFLOW_ADMIN_PASSWORD", ""), ("TASKFLOW_ADMIN_PASSWORD", "short"),
                        ("TASKFLOW_ADMIN_API_KEY", "tf_1_2")]
)  # fmt: skip
def test_a_wrong_administrator_changes_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    monkeypatch.setenv("TASKFLOW_ADMIN_USERNAME", "root")
    monkeypatch.setenv("TASKFLOW_ADMIN_PASSWORD", "correct horse")
    monkeypatch.setenv(name, value)
    assert migrate.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(name)
    assert not value or value not in said
    assert migrate.current(empty_database_url) is None


@contextmanager
def sessions() -> Iterator[None]:
    """The lazy engine belongs to one database, and each test has its own."""
    for face in (database._engine, database._sessions):
        face.cache_clear()
    yield
    database.engine.dispose()
    for face in (database._engine, database._sessions):
        face.cache_clear()


def test_the_function_that_sets_limits_brings_rows_under_the_cap_as_regate_does(database_url: str) -> None:
    regate = " ".join(line for line in statement("regate").splitlines() if not line.startswith("--"))
    with connected(database_url) as connection:
        [(body, volatile, settings)] = connection.execute(
            text("select prosrc, provolatile, proconfig from pg_proc where proname = 'taskflow_set_limits'")
        )
    assert " ".join(regate.removesuffix("returning tasks.id").split()) in " ".join(body.split())
    assert (volatile, settings) == ("v", ["search_path=pg_catalog, public, pg_temp"])
