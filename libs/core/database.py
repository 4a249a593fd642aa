"""Doors to PostgreSQL: the lazy SQLAlchemy faces for what is not hot, and `Database` for everything that is.

`engine`, `SessionLocal`, `async_engine`, `AsyncSessionLocal` are made at their first use; importing connects nothing.
"""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from core import clock, failover
from core.config import settings
from core.models import Base
from core.pool import Database, Tx
from core.sessions import READ_ONLY, connect, demoted
from core.urls import for_psycopg2

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    engine: Engine
    SessionLocal: sessionmaker[Session]
    async_engine: AsyncEngine
    AsyncSessionLocal: async_sessionmaker[AsyncSession]

__all__ = [
    "AsyncSessionLocal",
    "Base",
    "Database",
    "SessionLocal",
    "Tx",
    "async_engine",
    "engine",
    "get_db",
]


def _leave_demoted(engine: "Engine") -> None:
    """Replace a connection whose server takes no writes any more, and with it all that may be on the same server."""

    def connected(_dbapi: Any, record: Any) -> None:
        record.info["opened"] = clock.monotonic()

    def checked_out(_dbapi: Any, record: Any, _proxy: Any) -> None:  # after the ping, whose answer says it
        if demoted(record.driver_connection):
            failover.postgres.noticed()
        if failover.postgres.outdated(record.info["opened"]):
            raise DisconnectionError

    def failed(context: Any) -> None:
        if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
            failover.postgres.noticed()
            context.is_disconnect = True

    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", checked_out)
    event.listen(engine, "handle_error", failed)


@cache
def _engine() -> "Engine":
    made = create_engine(
        for_psycopg2(settings.database_url),
        pool_pre_ping=True,
        pool_timeout=2,
        connect_args={"connect_timeout": 5, "application_name": "tf-sync"},
    )
    _leave_demoted(made)
    return made


@cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(_engine(), expire_on_commit=False)


@cache
def _async_engine() -> "AsyncEngine":
    # asyncpg reads the whole URL by itself, sslmode and socket folders included; SQLAlchemy's translation does not.
    made = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(settings.database_url, name="tf-async"),
        pool_pre_ping=True,
    )
    _leave_demoted(made.sync_engine)
    return made


@cache
def _async_sessions() -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(_async_engine(), expire_on_commit=False)


_LAZY = {
    "engine": _engine,
    "SessionLocal": _sessions,
    "async_engine": _async_engine,
    "AsyncSessionLocal": _async_sessions,
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return _LAZY[name]()
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def get_db() -> Iterator[Session]:
    """Yield a session for one request: committed by its user, rolled back when it raises, closed after."""
    session = _sessions()()
    try:
        yield session
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()
