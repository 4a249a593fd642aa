"""Nudges: a worker is told by PostgreSQL's NOTIFY that its next beat has news for it.

A hint and nothing more: the beat says what the news is, and a nudge that is lost costs one interval of beats.
"""

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from asyncpg import exceptions as pg

from core.pool import Tx

_CHANNEL = "taskflow_worker_"


def nudge_channel(worker: UUID) -> str:
    """Return the channel of a worker; the statements that turn workers spell it as well."""
    return _CHANNEL + worker.hex


async def hear(connection: Tx, worker: UUID, nudged: Callable[[], None]) -> None:
    """Call `nudged` whenever somebody has news for `worker`, for as long as the connection lives.

    The connection is one of the caller's own, not a pool's. A server that refuses to LISTEN costs only the hint.
    """
    with suppress(pg.PostgresError):
        await connection.add_listener(nudge_channel(worker), lambda *_: nudged())
