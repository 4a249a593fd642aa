"""Opens sessions with PostgreSQL: with the settings of every session, on the host that takes writes."""

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from asyncpg import exceptions as pg

from core import failover
from core.urls import SESSION, TARGET, hosts, plain

CONNECT_SECONDS: Final = 5.0
LOST: Final = (
    pg.PostgresConnectionError,
    pg.InterfaceError,
    pg.InternalClientError,  # also: the host does not take writes
    OSError,
    EOFError,
    TimeoutError,
)
READ_ONLY: Final = pg.ReadOnlySQLTransactionError.sqlstate
_SAYS: Final = ("in_hot_standby", "default_transaction_read_only")
_NEXT: Final = (*LOST, pg.CannotConnectNowError)
_first: dict[str, int] = {}  # which host of a URL with several is asked first: the one that worked last


async def connect(
    url: str, *, name: str, command_seconds: float | None = None, guc: Mapping[str, str] | None = None, **driver: Any
) -> Any:
    """Return a new connection under `name` to the first host of `url` that takes writes; the caller closes it.

    `guc` are server settings beside those that every session has. Raises what the driver raises.
    """
    url = plain(url)
    asked = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": command_seconds,
        "server_settings": {**SESSION, **(guc or {}), "application_name": name},
        "target_session_attrs": TARGET,
        **driver,
    }
    places = hosts(url)
    if len(places) == 1:
        return await asyncpg.connect(url, **asked)
    first, last = _first.get(url, 0), len(places) - 1
    for step in range(len(places)):
        at = (first + step) % len(places)
        host, port = places[at]
        try:
            made = await asyncpg.connect(url, host=host, port=port, **asked)
        except BaseException as error:
            # A host that is silent uses up its caller's time: who asks next begins behind it.
            if _first.get(url, 0) == at:
                _first[url] = (at + 1) % len(places)
            if step == last or not isinstance(error, _NEXT):
                raise
        else:
            _first[url] = at
            return made
    raise AssertionError


def demoted(connection: Any) -> bool:
    """Tell whether the server has said that it takes no writes: it says so with the answer to any statement.

    `connection` is one of either driver's.
    """
    if hasattr(connection, "get_parameter_status"):  # of psycopg2
        return any(connection.get_parameter_status(name) == "on" for name in _SAYS)
    said = connection.get_settings()
    return any(getattr(said, name, "off") == "on" for name in _SAYS)


def heed(error: BaseException) -> None:
    """Note it when `error` says that the server takes no writes: other connections may be on it, too."""
    if isinstance(error, pg.ReadOnlySQLTransactionError):
        failover.postgres.noticed()
