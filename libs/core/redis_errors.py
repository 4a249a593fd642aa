"""What an error of Redis means, and what to do about it."""

from redis import exceptions as failure

_PASSWORD = (
    failure.AuthenticationError,
    failure.AuthorizationError,
    failure.AuthenticationWrongNumberOfArgsError,
)
_DEMOTED = (failure.ReadOnlyError, failure.MasterDownError)


def down(error: BaseException) -> bool:
    """Tell whether `error` comes from Redis, of whatever kind: then it cannot be used for this just now.

    An unforeseen error (a key of another type, a command that the user may not run) must not stop intake, either.
    """
    return isinstance(error, (failure.RedisError, OSError, TimeoutError))


def reason_of(error: BaseException) -> str:
    """Return the kind of `error`, as `taskflow_redis_errors_total` labels it."""
    if isinstance(error, _PASSWORD):
        return "password"
    if isinstance(error, failure.NoPermissionError):
        return "permission"
    if isinstance(error, _DEMOTED):
        return "read_only"
    return "answer" if isinstance(error, failure.ResponseError) else "unreachable"


def fix_of(reason: str, level: str) -> str:
    """Return what to do about errors of a kind, "" when there is nothing to do but to wait."""
    level = level.upper()
    fixes = {
        "password": f"set REDIS_USERNAME_{level} and REDIS_PASSWORD_{level} to what the server accepts",
        "permission": "give this user the commands and keys that users.acl of the Helm chart gives it",
        "answer": "delete tf: keys of another type, and compare this user's rights with users.acl of the Helm chart",
    }
    return fixes.get(reason, "")
