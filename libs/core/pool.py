"""A pool of asyncpg connections whose failures say what is known.

`Unavailable`: nothing was committed, try again. `CommitUnknown`: the answer to a COMMIT was lost, so the caller must
read back by its own token before it says anything. The plans of the hot statements are pinned here: on a table
without statistics, or with wrong ones, a join by `unnest` otherwise leaves the primary key (design.md §5).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg import exceptions as pg
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811 - so that the two are told apart
from asyncpg.protocol import protocol as driver

from core import clock, failover
from core.errors import CommitUnknown, Unavailable
from core.sessions import LOST, connect, demoted, heed
from core.urls import plain

Tx: TypeAlias = Any  # asyncpg's Connection or pool proxy: it ships no types

PINNED = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",  # it reads its whole range of the index before a LIMIT can stop it
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
_REFUSED = (
    pg.OperatorInterventionError,  # 57P01-57P03: shutting down, crashed, starting up; 57014: a statement's time limit
    pg.InsufficientResourcesError,  # 53xxx: disk full, out of memory, too many connections
    pg.TransactionRollbackError,  # 40001, 40P01
    pg.LockNotAvailableError,
    pg.IdleInTransactionSessionTimeoutError,
    pg.PostgresSystemError,  # 58xxx: the server's own input and output
    pg.ReadOnlySQLTransactionError,  # the other side of a failover
)
ACQUIRE_SECONDS = 2.0

# The driver asks each element of an array whether it is an array itself, by two abstract classes, which takes longer
# than all the rest of the encoding. What we send as arrays are lists and tuples.
ARRAYS = (list, tuple)
vars(driver).update(IterableABC=ARRAYS, SizedABC=ARRAYS)


def uuid_of(raw: bytes) -> UUID:
    """Return the UUID of 16 bytes, in the driver's own kind: made, hashed and sent in a fraction of the time."""
    made: UUID = DriverUUID(raw)
    return made


def lost(error: BaseException) -> bool:
    """Tell whether `error` cut the connection, so that what was under way is unknown."""
    if isinstance(error, ValueError):  # asyncpg.DataError: an argument that cannot be encoded was never sent
        return False
    return isinstance(error, (*LOST, pg.AdminShutdownError, pg.CrashShutdownError))


def unavailable(error: BaseException) -> bool:
    """Tell whether `error` is the database's state rather than the statement's fault."""
    return lost(error) or isinstance(error, _REFUSED)


def heed_cancel() -> None:
    """Raise CancelledError in a task that was asked to end: once a turn, in every loop that uses the database.

    Under Python 3.11 asyncpg swallows the asking when a connection is had in the same moment (its `compat.wait_for`).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"PostgreSQL did not answer as it should: {type(error).__name__}: {text[0] if text else ''}"


async def _leave(connection: Tx) -> None:
    """Hand a session back as it is: our statements set nothing that outlives a transaction."""
    if connection.is_in_transaction():  # a second cancellation cut the rollback short
        await connection.execute("rollback")


class Database:
    """Connections to PostgreSQL under one name. It starts without a server and survives any of its restarts."""

    def __init__(
        self, url: str, *, name: str, size: int = 4, hot: bool = True, command_seconds: float = 30.0, **guc: str
    ) -> None:
        """Take `url`; `guc` are further server settings of each session, e.g. statement_timeout="5s"."""
        self._url = plain(url)
        self._name = name
        self._settings = {**(PINNED if hot else {}), **guc}
        self._size = size
        self._command_seconds = command_seconds
        self._pool: Any = None
        self._opened = 0.0  # no connection of the pool is older

    async def __aenter__(self) -> Self:
        """Make the pool; connections come with their first use, so a server that is down is no error yet."""
        self._opened = clock.monotonic()
        connecting: Any = self._connect
        self._pool = await asyncpg.create_pool(
            min_size=0, max_size=self._size, max_inactive_connection_lifetime=60.0, connect=connecting, reset=_leave
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool; connections that do not close within two seconds are cut."""
        try:
            await asyncio.wait_for(self._pool.close(), 2.0)
        except (TimeoutError, *LOST):
            self._pool.terminate()

    async def own_connection(self) -> Tx:
        """Return a connection outside the pool; the caller closes it. Raises Unavailable."""
        try:
            return await self._connect()
        except (*LOST, pg.PostgresError) as error:  # a password or a database that is refused, too
            raise Unavailable(_sentence(error)) from error

    async def _connect(self, *_: Any, **driver: Any) -> Tx:
        return await connect(
            self._url, name=self._name, command_seconds=self._command_seconds, guc=self._settings, **driver
        )

    async def _acquire(self) -> Tx:
        if failover.postgres.outdated(self._opened):
            self._opened = clock.monotonic()
            await self._pool.expire_connections()
        try:
            return await self._pool.acquire(timeout=ACQUIRE_SECONDS)
        except (*LOST, pg.PostgresError) as error:  # a password or a database that is refused, too
            raise Unavailable(_sentence(error)) from error

    async def _release(self, connection: Tx) -> None:
        with suppress(*LOST, *_REFUSED):
            if not connection.is_closed():
                if demoted(connection):
                    failover.postgres.noticed()
                if failover.postgres.outdated(self._opened):
                    connection.terminate()
            await self._pool.release(connection, timeout=ACQUIRE_SECONDS)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """Open one transaction; it commits when the block ends and rolls back when the block raises.

        Raises Unavailable when nothing was committed, CommitUnknown when nobody can tell.
        """
        connection = await self._acquire()
        try:
            transaction = connection.transaction()
            try:
                await transaction.start()
                yield connection
            except BaseException as error:
                heed(error)
                with suppress(*LOST, pg.PostgresError):
                    await transaction.rollback()
                if unavailable(error):
                    raise Unavailable(_sentence(error)) from error
                raise
            await self._commit(transaction)
        finally:
            await self._release(connection)

    async def _commit(self, transaction: Any) -> None:
        try:
            await transaction.commit()
        except BaseException as error:
            heed(error)
            # A cancellation stays one: who waits for the cancelled task would wait for ever for a loop that went on.
            if lost(error):
                message = f"The answer to a COMMIT was lost: {type(error).__name__}"
                raise CommitUnknown(message) from error
            if unavailable(error):
                raise Unavailable(_sentence(error)) from error
            raise

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Tx]:
        """Lend a connection on which each statement is a transaction of its own.

        Raises Unavailable when no connection could be had or the statement was refused, CommitUnknown when the
        connection was lost while a statement was under way.
        """
        connection = await self._acquire()
        try:
            yield connection
        except BaseException as error:
            heed(error)
            if lost(error):
                message = f"The answer to a statement was lost: {type(error).__name__}"
                raise CommitUnknown(message) from error
            if unavailable(error):
                raise Unavailable(_sentence(error)) from error
            raise
        finally:
            await self._release(connection)
