"""What an error of PostgreSQL blames. Imports the driver alone: a worker that starts has no time for more."""

from asyncpg import exceptions as pg
from asyncpg.exceptions import _base as pg_client

_TASKS = "tasks"
_KEYS = "idempotency_keys"


def rejected(error: BaseException) -> bool:
    """Tell whether a row that was sent is to blame, so that the same batch without it would go through."""
    if isinstance(error, pg.CheckViolationError):
        # The audit trail without a partition for today says the same; no row of ours is to blame for that.
        return bool(getattr(error, "table_name", None) == _TASKS)
    return isinstance(
        error,
        (
            pg.DataError,  # 22xxx: a value that PostgreSQL cannot hold
            pg_client.DataError,  # the driver itself could not write the value
            pg.IntegrityConstraintViolationError,
            pg.ProgramLimitExceededError,  # 54000: too large for an index
        ),
    )


def lock_held(error: BaseException) -> bool:
    """Tell whether the statement gave up waiting for a lock that another transaction holds."""
    return isinstance(error, pg.LockNotAvailableError) or isinstance(error.__cause__, pg.LockNotAvailableError)


def key_held(error: BaseException) -> bool:
    """Tell whether the statement gave up waiting for another transaction that writes the same idempotency key.

    A wait for anything else (a lock on a table, a queue's row) says nothing about the key, which may be unused.
    PostgreSQL names the table of the row in the error's context; a wait for the lock of a table has no context.
    """
    waited = error if isinstance(error, pg.LockNotAvailableError) else error.__cause__
    return isinstance(waited, pg.LockNotAvailableError) and _KEYS in (getattr(waited, "context", None) or "")
