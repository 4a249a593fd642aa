"""Statements of migrations that lock a whole table, for use beside running services.

A statement that waits for such a lock stops every writer that comes after it, for as long as it waits. So it waits
briefly, and often.
"""

from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from core import clock

TRIES: Final = 30
WAIT_MS: Final = 200  # how long writers stand behind one try, at most
PAUSE_SECONDS: Final = 1.0
_LOCK_NOT_AVAILABLE: Final = "55P03"
_LOCK_TIMEOUT: Final = "select setting::int from pg_settings where name = 'lock_timeout'"


def lock_briefly(connection: Connection, *statements: str) -> None:
    """Run statements, each a transaction of its own, that take a lock which stops the writers of a table.

    Each try waits WAIT_MS for its lock, or as long as the session's `lock_timeout`, if that is less. Call it in
    autocommit mode. Raises OperationalError when TRIES tries have met a lock.
    """
    patience = int(connection.scalar(text(_LOCK_TIMEOUT)) or 0)
    wait = min(patience, WAIT_MS) if patience else WAIT_MS
    _set_lock_timeout(connection, wait)
    try:
        for statement in statements:
            _try_often(connection, statement)
    finally:
        _set_lock_timeout(connection, patience)


def _try_often(connection: Connection, statement: str) -> None:
    for left in reversed(range(TRIES)):
        try:
            connection.exec_driver_sql(statement)
            return
        except OperationalError as refused:
            if getattr(refused.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE or not left:
                raise
        clock.pause(PAUSE_SECONDS)


def _set_lock_timeout(connection: Connection, milliseconds: int) -> None:
    connection.execute(text("select set_config('lock_timeout', :most, false)"), {"most": str(milliseconds)})
