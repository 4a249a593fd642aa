"""The migration that repairs running tasks without a worker or a claim, on a database that is in use."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from core import migrate, online
from core.urls import for_psycopg2

if TYPE_CHECKING:
    from collections.abc import Iterator

BEFORE = "0008"
CONSTRAINT = "select convalidated from pg_constraint where conname = 'tasks_running_is_held'"
MANY = 1203  # more than two batches
INSERT = """
insert into tasks (id, owner_id, type, queue, concurrency_key, payload, payload_bytes, status, gated, permit, attempt,
                   claim, worker_id, started_at, worker_deaths, crash_count, retry_count, cancel_deadline)
values (:id, 1, 'a:b', 'default', :key, '{}', 2, :status, :key <> '', :key <> '', 1, :claim, :worker,
        clock_timestamp(), 0, 0, 0, case when :status = 'CANCELLING' then clock_timestamp() end)
"""
STARTED = """
insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at)
values (:id, 'STARTED', 1, :claim, :worker, clock_timestamp())
"""
ROW = """
select status::text as status, seq is not null as placed, gated, permit, claim, worker_id, cancel_deadline,
       finished_at is not null as finished, worker_deaths + crash_count + retry_count as charged
from tasks where id = :id
"""
LAST = """
select event_type::text as kind, attempt, claim, worker_id, cause from task_events where task_id = :id
order by created_at desc, id desc limit 1
"""


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(for_psycopg2(url))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture
def old_url(empty_database_url: str) -> str:
    migrate.upgrade(empty_database_url, BEFORE)
    return empty_database_url


def plant(connection: Connection, *, key: str = "", status: str = "IN_PROGRESS", claim: bool, worker: bool) -> Any:
    """A running task that has lost its claim, its worker or both; what its STARTED event says."""
    known = {"id": uuid4(), "claim": uuid4(), "worker": uuid4()}
    row = {**known, "claim": known["claim"] if claim else None, "worker": known["worker"] if worker else None}
    connection.execute(text(INSERT), {**row, "key": key, "status": status})
    connection.execute(text(STARTED), known)
    return known


def one(connection: Connection, query: str, task: UUID) -> dict[str, Any]:
    return dict(connection.execute(text(query), {"id": task}).one()._mapping)


def test_running_tasks_that_nobody_holds_are_taken_back_uncharged(old_url: str) -> None:
    waits = {"claim": None, "worker_id": None, "permit": False, "cancel_deadline": None, "charged": 0}
    with connected(old_url) as connection:
        free = [plant(connection, claim=claim, worker=not claim) for claim in (True, False)]
        gated = plant(connection, key="k", claim=False, worker=False)
        cancelling = plant(connection, status="CANCELLING", claim=False, worker=False)
        held = plant(connection, claim=True, worker=True)
        connection.execute(text("insert into queues (name) values ('default')"))
        connection.commit()
    migrate.upgrade(old_url)
    with connected(old_url) as connection:
        for lost in free:
            assert one(connection, ROW, lost["id"]) == {
                "status": "QUEUED", "placed": True, "gated": False, "finished": False, **waits,
            }  # fmt: skip
        assert one(connection, ROW, gated["id"]) == {
            "status": "PENDING", "placed": False, "gated": True, "finished": False, **waits,
        }  # fmt: skip
        assert one(connection, ROW, cancelling["id"]) == {
            "status": "CANCELLED", "placed": False, "gated": False, "finished": True, **waits,
            "worker_id": cancelling["worker"],
        }  # fmt: skip
        for lost in (*free, gated, cancelling):
            assert one(connection, LAST, lost["id"]) == {
                "kind": "CANCELLED" if lost is cancelling else "RESCUED", "attempt": 1, "claim": lost["claim"],
                "worker_id": lost["worker"], "cause": "worker_lost",
            }  # fmt: skip
        assert one(connection, ROW, held["id"])["status"] == "IN_PROGRESS"
        assert one(connection, LAST, held["id"])["kind"] == "STARTED"


def test_from_then_on_postgresql_refuses_them(database_url: str) -> None:
    with connected(database_url) as connection:
        assert connection.scalar(text(CONSTRAINT)) is True
        for status in ("IN_PROGRESS", "CANCELLING"):
            for claim in (True, False):
                with pytest.raises(IntegrityError) as refused:
                    plant(connection, status=status, claim=claim, worker=not claim)
                connection.rollback()
                assert refused.value.orig is not None
                assert refused.value.orig.diag.constraint_name == "tasks_running_is_held"  # type: ignore[attr-defined]
            plant(connection, status=status, claim=True, worker=True)


def test_many_are_taken_back_in_batches(old_url: str) -> None:
    with connected(old_url) as connection:
        connection.execute(
            text(
                "insert into tasks (id, owner_id, type, queue, payload, payload_bytes, status)"
                " select gen_random_uuid(), 1, 'a:b', 'default', '{}', 2, 'IN_PROGRESS'"
                f" from generate_series(1, {MANY})"
            )
        )
        connection.commit()
    migrate.upgrade(old_url)
    with connected(old_url) as connection:
        found = connection.execute(
            text(
                "select count(*), count(distinct tasks.xmin::text), count(distinct seq) from tasks"
                " join task_events on task_id = tasks.id and event_type = 'RESCUED' where status = 'QUEUED'"
            )
        ).one()
    assert tuple(found) == (MANY, 3, MANY)


def test_a_migration_that_waits_for_a_lock_lets_writers_through_and_goes_on_after_it(
    old_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads for long, as a dump does. The lock on the whole table waits for that, and writers do not."""
    refused, read = threading.Event(), threading.Event()

    def pause(_seconds: float) -> None:
        refused.set()
        assert read.wait(30)

    monkeypatch.setattr(online.clock, "pause", pause)
    migration = threading.Thread(target=migrate.upgrade, args=(old_url,), daemon=True)
    with connected(old_url) as reader, connected(old_url) as writer:
        reader.execute(text("select count(*) from tasks"))
        migration.start()
        assert refused.wait(30)
        writer.execute(text("set statement_timeout = '1s'"))
        plant(writer, claim=True, worker=True)
        writer.commit()
        reader.rollback()
        read.set()
        migration.join(60)
        assert writer.scalar(text(CONSTRAINT)) is True
    assert migrate.is_ready(old_url)


def test_it_gives_up_after_some_tries_and_can_be_repeated(old_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(online.clock, "pause", pauses.append)
    monkeypatch.setattr(online, "WAIT_MS", 10)
    with connected(old_url) as reader:
        reader.execute(text("select count(*) from tasks"))
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate.upgrade(old_url)
    assert len(pauses) == online.TRIES - 1
    assert migrate.current(old_url) == BEFORE
    migrate.upgrade(old_url)
    assert migrate.is_ready(old_url)
