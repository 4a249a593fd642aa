"""How Alembic runs our migrations: one connection, one transaction each, and no endless wait for a lock."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from core import clock
from core.config import settings
from core.models import Base
from core.urls import MIGRATION, for_psycopg2

MIGRATION_LOCK = (0x7466, 9)
LOOK_SECONDS = 0.2


def is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compared: Any) -> bool:
    """Leave out the daily partitions: the leader makes and drops them."""
    return not (kind == "table" and name is not None and name.startswith("task_events_"))


def run() -> None:
    """Run the migrations under an advisory lock, so that several replicas may start at once."""
    url = context.config.attributes.get("url") or for_psycopg2(settings.database_url, MIGRATION)
    lock_timeout = context.config.attributes.get("lock_timeout", "5s")
    meanwhile = context.config.attributes.get("meanwhile", lambda: None)
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    with engine.connect() as connection:
        connection.execute(text("set statement_timeout = '10min'"))
        # Asked again and again, not waited for: a statement that waits is a transaction, and CREATE INDEX CONCURRENTLY
        # waits for those. A replica that comes second lets the first one's migration end, however long that takes.
        while not connection.scalar(
            text("select pg_try_advisory_lock(:a, :b)"), {"a": MIGRATION_LOCK[0], "b": MIGRATION_LOCK[1]}
        ):
            connection.commit()
            meanwhile()
            clock.pause(LOOK_SECONDS)
        connection.execute(text("select set_config('lock_timeout', :most, false)"), {"most": lock_timeout})
        connection.commit()
        context.config.attributes["empty"] = connection.scalar(text("select to_regclass('alembic_version') is null"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_object=is_ours,
            transaction_per_migration=True,
            compare_server_default=False,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
