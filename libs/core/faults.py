"""What the errors of the drivers mean, for those who may not know the drivers."""

from redis.exceptions import RedisError
from sqlalchemy import exc as alchemy

from core.errors import TaskFlowError, Unavailable
from core.pool import unavailable
from core.refusals import key_held, lock_held, rejected

__all__ = ["key_held", "lock_held", "rejected", "translate"]


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
