"""What an error of PostgreSQL blames. Imports the driver alone: a worker that starts has no time for more."""

from asyncpg import exceptions as pg
from asyncpg.exceptions import _base as pg_client

_TASKS = "tasks"


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
