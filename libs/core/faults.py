"""What the errors of the drivers mean, for those who may not know the drivers."""

from asyncpg import exceptions as pg
from asyncpg.exceptions import _base as pg_client
from redis.exceptions import RedisError
from sqlalchemy import exc as alchemy

from core.errors import TaskFlowError, Unavailable
from core.pool import unavailable

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


def translate(error: BaseException) -> TaskFlowError | None:
    """Return the error of ours that a driver's error amounts to, or None when it is a mistake in the program."""
    if isinstance(error, TaskFlowError):
        return error
    stores = isinstance(error, (alchemy.OperationalError, alchemy.InterfaceError, alchemy.TimeoutError))
    broken = isinstance(error, alchemy.DBAPIError) and error.connection_invalidated
    if stores or broken or (unavailable(error) and not rejected(error)):
        return Unavailable("PostgreSQL does not answer as it should", fix="try again when Retry-After has passed")
    if isinstance(error, RedisError):
        return Unavailable("Redis does not answer as it should", fix="try again when Retry-After has passed")
    return None
