"""Every session asks the server for the same settings, whoever opens it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from core import database, migrate
from core.pool import Database, connect
from core.urls import for_psycopg2

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a session has asked for: over a Unix socket the server shows 0 for the settings of TCP, whatever was asked.
ASKED = """select name, reset_val from pg_settings
    where name like 'tcp%' or name = 'idle_in_transaction_session_timeout' order by name"""
TCP = {
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_user_timeout": "10000",
}
ALL = {**TCP, "idle_in_transaction_session_timeout": "5000"}


def as_dict(rows: Iterable[Any]) -> dict[str, str]:
    return dict(map(tuple, rows))


def of_psycopg2(url: Any) -> dict[str, str]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return as_dict(connection.execute(text(ASKED)))
    finally:
        engine.dispose()


@pytest.mark.parametrize("hot", [True, False])
async def test_pools_and_own_connections_ask_for_the_settings(database_url: str, *, hot: bool) -> None:
    async with Database(database_url, name="t", hot=hot, statement_timeout="3s") as pool:
        async with pool.connection() as tx:
            assert as_dict(await tx.fetch(ASKED)) == ALL
            assert await tx.fetchval("show statement_timeout") == "3s"
        own = await pool.own_connection()
    assert as_dict(await own.fetch(ASKED)) == ALL
    await own.close()


async def test_connections_of_doctor_and_of_sqlalchemy_ask_for_the_settings(environment: dict[str, str]) -> None:
    single = await connect(environment["DATABASE_URL"], name="tf-doctor")
    assert as_dict(await single.fetch(ASKED)) == ALL
    await single.close()
    async with database.async_engine.connect() as connection:
        assert as_dict(await connection.execute(text(ASKED))) == ALL
    await database.async_engine.dispose()
    with database.engine.connect() as connection:
        assert as_dict(connection.execute(text(ASKED))) == ALL
    database.engine.dispose()
    database._engine.cache_clear()
    database._async_engine.cache_clear()


async def test_migrations_may_pause_within_a_transaction(database_url: str) -> None:
    asked = await asyncio.to_thread(of_psycopg2, migrate.config(database_url).attributes["url"])
    assert asked == {**TCP, "idle_in_transaction_session_timeout": "0"}


def test_options_of_the_url_stay(database_url: str) -> None:
    url = for_psycopg2(f"{database_url}&options=-c%20work_mem%3D5MB%20-c%20tcp_user_timeout%3D1")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("show work_mem")).scalar() == "5MB"
        assert as_dict(connection.execute(text(ASKED))) == ALL
    engine.dispose()
