"""Doors to PostgreSQL: the lazy SQLAlchemy faces for what is not hot, and `Database` for everything that is.

`engine`, `SessionLocal`, `async_engine`, `AsyncSessionLocal` are made at their first use; importing connects nothing.
"""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from core.config import settings
from core.models import Base
from core.pool import Database, Tx, connect
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


@cache
def _engine() -> "Engine":
    return create_engine(
        for_psycopg2(settings.database_url),
        pool_pre_ping=True,
        pool_timeout=2,
        connect_args={"connect_timeout": 5, "application_name": "tf-sync"},
    )


@cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(_engine(), expire_on_commit=False)


@cache
def _async_engine() -> "AsyncEngine":
    # asyncpg reads the whole URL by itself, sslmode and socket folders included; SQLAlchemy's translation does not.
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(settings.database_url, name="tf-async"),
        pool_pre_ping=True,
    )


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
