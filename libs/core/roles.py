"""The rights of the services' PostgreSQL roles, given where a role exists: what a service runs, and nothing beside it.

Who breaks into a worker finds no users and no keys; who breaks into the API makes no administrator and no leader. The
tables belong to the role that migrates. tests/integration/test_roles.py logs in as each role and runs what it runs.

A worker of today calls functions and needs no right on a table. Workers of earlier versions use the tables, so their
rights are taken in a second step: at once where an installation begins, elsewhere by `set_worker_rights`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, TypeAlias

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from core import functions
from core.errors import Conflict
from core.urls import for_psycopg2


class WorkerRights(StrEnum):
    """What the workers' role may do: run statements on its tables, as earlier versions do, or call functions only."""

    TABLES = "tables"
    FUNCTIONS = "functions"


API: Final = "taskflow_api"
SCHEDULER: Final = "taskflow_scheduler"
WORKER: Final = "taskflow_worker"
OPERATOR: Final = "taskflow_operator"

Rights: TypeAlias = Mapping[str, tuple[str, ...]]  # table or sequence -> "select", "update (a, b)", …

# What may change of a task; who owns it, what it is and what it was given never does.
_FINISHED = (
    "status, seq, gated, permit, attempt, claim, worker_id, scheduled_at, started_at, finished_at, updated_at,"
    " retry_count, crash_count, isolation, cancel_deadline, progress, result, error"
)
_MOVED = f"{_FINISHED}, priority, expires_at, worker_deaths, generation"
_SETTINGS = "paused, max_concurrent, max_per_key, updated_at"
_DEFAULTS = "default_max_attempts, default_timeout_seconds"
_SLOTS = "sync_slots, async_slots, free_sync, free_async"
_LEADS: Rights = {
    "leader": ("select", "insert", "update (epoch, holder, since)"),
    "leases": ("select", "insert", "update (holder, renewals, released)"),
}
# To know whether the migrations have run.
_ALL: Rights = {"alembic_version": ("select",), "task_seq": ("usage",), "task_event_seq": ("usage",)}
_LOOKS: Rights = {"ready_floors": ("select",)}  # for QUEUED rows, from the floors on

RIGHTS: Final[Mapping[str, Rights]] = {
    API: {
        **_ALL,
        "users": ("select", "insert (email, username, password)", "update (password)"),
        "api_keys": ("select", "insert", "update (is_active, last_used_at)"),
        "idempotency_keys": ("select", "insert"),
        "login_tries": ("select", "insert", "update (whole_at)"),
        "queues": ("select", "insert (name)", f"update ({_SETTINGS})"),
        "tasks": ("select", "insert", f"update ({_MOVED})"),
        "task_events": ("select", "insert"),
        "task_logs": ("select",),
        "workers": ("select",),
    },
    SCHEDULER: {
        **_ALL,
        **_LEADS,
        "task_seq": ("usage", "select"),  # how far the sequence has come
        "task_event_seq": ("usage", "select"),
        "idempotency_keys": ("select (owner_id, key, created_at)", "delete"),
        "login_tries": ("select", "delete"),
        "ready_floors": ("select", "insert", "update (seq)"),
        "queues": ("select",),
        "tasks": ("select", "delete", f"update ({_MOVED})"),
        "task_events": ("insert",),
        "task_logs": (
            "select (task_id)",
            "insert",
            "delete",
        ),  # the statement that ends an attempt also writes its logs
        "workers": ("select", "delete", "update (state)"),
    },
    WORKER: {
        **_ALL,
        **_LOOKS,
        "queues": (f"select (name, {_SETTINGS}, {_DEFAULTS}, concurrency)",),
        "tasks": ("select", f"update ({_FINISHED})"),
        "task_events": ("select", "insert"),
        "task_logs": ("insert",),
        "workers": (
            "select",
            "insert",
            f"update (state, queues, sync_types, async_types, {_SLOTS}, beat_seq, beat_at)",
        ),
        "queue_types": ("select", "insert", "update (types, announced_at, template)"),
    },
    OPERATOR: {
        **_ALL,
        **_LEADS,
        **_LOOKS,
        "queues": (
            "select",
            "insert",
            f"update ({_SETTINGS}, {_DEFAULTS}, completed_seconds, failed_seconds, concurrency, taskqueue)",
        ),
        "tasks": ("select", f"update ({_MOVED})"),
        "task_events": ("insert",),
        "workers": ("select", "update (state, death)"),
        "queue_types": ("select",),
    },
}
_SEQUENCES = frozenset({"task_seq", "task_event_seq"})


# Workers of earlier versions register without naming the functions that they call.
_OLDER: Final = "select name from workers where functions is null and state <> 'dead' order by name"


def statements(role: str, worker_rights: WorkerRights = WorkerRights.TABLES) -> Iterator[str]:
    """Yield what gives `role` its rights, and takes from it whatever it had beside them.

    The functions that workers call are not among them: they have names that only the database knows.
    """
    yield f"revoke all on all tables in schema public from {role}"
    yield f"revoke all on all sequences in schema public from {role}"
    yield f"revoke all on all functions in schema public from {role}"
    yield f"grant usage on schema public to {role}"
    on_tables = {} if role == WORKER and worker_rights is WorkerRights.FUNCTIONS else RIGHTS[role]
    for name, rights in on_tables.items():
        kind = "sequence" if name in _SEQUENCES else "table"
        yield f"grant {', '.join(rights)} on {kind} public.{name} to {role}"
    if role == API:
        yield f"grant execute on function public.taskflow_set_limits(text, int, int, int) to {role}"
    if role == SCHEDULER:
        yield f"grant execute on function public.taskflow_ensure_partitions() to {role}"


def grant(url: str) -> list[str]:
    """Give the roles that exist their rights on the database at `url`, in one transaction; return their names.

    Safe to repeat, and from several processes at once. The login at `url` must own the tables.
    """
    with _locked(url) as connection:
        return _grant(connection)


def set_worker_rights(url: str, rights: WorkerRights) -> None:
    """Take the rights on tables from the workers' role, or give them back, in one transaction.

    Raises Conflict while a worker of an earlier version lives: its endings would be refused, and then dropped.
    """
    with _locked(url) as connection:
        if rights is WorkerRights.FUNCTIONS:
            # A worker that registers meanwhile waits for this transaction, and is refused afterwards.
            connection.execute(text("lock table workers in share row exclusive mode"))
            if older := connection.scalars(text(_OLDER)).all():
                message = f"{len(older)} workers of an earlier version still run: {', '.join(older[:5])}"
                raise Conflict(message, fix="replace them with workers of this version, then run this again")
        connection.execute(
            text("update installation set value = :rights where name = 'worker_rights'"), {"rights": rights.value}
        )
        _grant(connection)


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    engine = create_engine(for_psycopg2(url), poolclass=NullPool, connect_args={"connect_timeout": 10})
    try:
        with engine.begin() as connection:
            first, second = functions.LOCK
            connection.execute(text("set local lock_timeout = '10s'"))
            connection.execute(text("select pg_advisory_xact_lock(:a, :b)"), {"a": first, "b": second})
            yield connection
    finally:
        engine.dispose()


def _grant(connection: Connection) -> list[str]:
    recorded = connection.scalar(text("select value from installation where name = 'worker_rights'"))
    found = connection.scalars(
        text("select rolname from pg_roles where rolname = any (:names) order by rolname"), {"names": list(RIGHTS)}
    ).all()
    for role in found:
        for statement in statements(role, WorkerRights(recorded)):
            connection.exec_driver_sql(statement)
    if WORKER in found:
        for signature in functions.signatures(connection):
            connection.exec_driver_sql(f"grant execute on function {signature} to {WORKER}")
    return list(found)
