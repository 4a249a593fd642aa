"""Telling the operator that a queue has tasks and nobody who takes them: NOTIFY, heard by whoever LISTENs."""

from collections.abc import Sequence

from core.pool import Tx

WAKE_CHANNEL = "taskflow_wake"


async def notify_wake(tx: Tx, queues: Sequence[str]) -> None:
    """Say that these queues want a worker; heard when the transaction commits, and lost when nobody listens."""
    await tx.execute(
        "select pg_notify($1, queue) from unnest($2::text[]) as wanting(queue)", WAKE_CHANNEL, list(queues)
    )
