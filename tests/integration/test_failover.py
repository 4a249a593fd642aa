"""No connection stays on a server that takes no writes any more; with a real standby: tests/system/test_standby.py."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError

from core import database, waking
from core.errors import Unavailable
from core.pool import Database
from core.sessions import connect
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PID = "select pg_backend_pid()"
LISTENERS = "select pid from pg_stat_activity where application_name = 'tf-wake' and datname = current_database()"
DEMOTE = "set default_transaction_read_only = on"  # as the server of this session has it from now on


async def pid_of(db: Database) -> int:
    async with db.connection() as tx:
        return int(await tx.fetchval(PID))


async def test_a_read_on_a_demoted_server_replaces_the_connections_of_all_pools(database_url: str) -> None:
    async with Database(database_url, name="reads") as reads, Database(database_url, name="others") as others:
        other = await pid_of(others)
        async with reads.connection() as tx:
            first = await tx.fetchval(PID)
            await tx.execute(DEMOTE)
        assert await pid_of(reads) != first
        assert await pid_of(others) != other


async def write_in_a_statement(db: Database) -> None:
    async with db.connection() as tx:
        await tx.execute("begin read only; delete from tasks")


async def write_in_a_transaction(db: Database) -> None:
    async with db.begin() as tx:
        await tx.execute("set local transaction_read_only = on; delete from tasks")


@pytest.mark.parametrize("write", [write_in_a_statement, write_in_a_transaction])
async def test_a_refused_write_replaces_the_connections_of_all_pools(
    database_url: str, write: Callable[[Database], Awaitable[None]]
) -> None:
    async with Database(database_url, name="writes") as writes, Database(database_url, name="others") as others:
        first, other = await pid_of(writes), await pid_of(others)
        with pytest.raises(Unavailable, match="read-only"):  # the server does not say that it is demoted: it refuses
            await write(writes)
        assert await pid_of(writes) != first
        assert await pid_of(others) != other


async def test_listening_goes_on_elsewhere(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "PING_SECONDS", 0.05)
    async with Database(database_url, name="t") as db, aclosing(waking.listen(database_url)) as heard:
        assert await anext(heard) == ""
        async with db.connection() as tx:
            first = await tx.fetchval(LISTENERS)
            await tx.execute(DEMOTE)
        assert await anext(heard) == ""  # a new connection: until now nothing was heard

        async def replaced() -> bool:
            async with db.connection() as tx:
                rows = await tx.fetch(LISTENERS)
            return [row["pid"] for row in rows] not in ([], [first])

        await happens(replaced)


def test_the_engine_for_accounts_leaves_a_demoted_server(environment: dict[str, str]) -> None:
    database._engine.cache_clear()
    engine = database.engine
    try:
        with engine.connect() as connection:
            first = connection.execute(text(PID)).scalar()
            connection.execute(text(DEMOTE))
            connection.commit()
        with engine.connect() as connection:
            second = connection.execute(text(PID)).scalar()
            assert second != first
            connection.execute(text("set transaction read only"))
            with pytest.raises(InternalError) as refused:
                connection.execute(text("delete from tasks"))
            assert refused.value.connection_invalidated
        with engine.connect() as connection:
            assert connection.execute(text(PID)).scalar() != second
    finally:
        engine.dispose()
        database._engine.cache_clear()


async def test_a_connection_is_refused_by_a_server_that_takes_no_writes(database_url: str) -> None:
    options = "&options=-c%20default_transaction_read_only%3Don"
    async with Database(f"{database_url}{options}", name="t") as db:
        with pytest.raises(Unavailable, match="read-write"):
            await pid_of(db)


async def test_of_several_hosts_the_one_that_answers_is_asked_first_next_time(database_url: str) -> None:
    path, _, query = database_url.partition("?")
    folder, port = (part.partition("=")[2] for part in query.split("&"))
    url = f"{path}?host=/nowhere,{folder}&port=1,{port}"
    made: list[Any] = [await connect(url, name="t") for _ in range(2)]
    for connection in made:
        assert await connection.fetchval("select 1") == 1
        await connection.close()
    async with Database(url, name="t") as db:
        assert await pid_of(db)


async def test_whatever_refuses_a_connection_it_is_unavailable(database_url: str) -> None:
    nowhere = database_url.replace("/test_", "/gone_")
    async with Database(nowhere, name="t") as db:
        with pytest.raises(Unavailable, match="does not exist"):
            await pid_of(db)
        with pytest.raises(Unavailable, match="does not exist"):
            await db.own_connection()
