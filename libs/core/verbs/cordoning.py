"""Cordons: workers that take nothing more and keep what they run; and why a pod died."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from core.pool import Tx
from core.sql import statement

_MOST_MESSAGE = 2000  # characters of what Kubernetes says of a death


async def cordon(tx: Tx, workers: Sequence[UUID]) -> list[UUID]:
    """Let `workers` claim nothing more; return those that were alive, and are cordoned now.

    It waits for their claims that are under way, so what they hold from here on is what PostgreSQL says that they hold.
    """
    return [row["id"] for row in await tx.fetch(statement("workers_turn"), sorted(workers), "alive", "cordoned")]


async def uncordon(tx: Tx, workers: Sequence[UUID]) -> list[UUID]:
    """Let cordoned `workers` claim again; return those that were cordoned, and are alive now."""
    return [row["id"] for row in await tx.fetch(statement("workers_turn"), sorted(workers), "cordoned", "alive")]


async def note_death(tx: Tx, pod_uid: str, *, before: datetime | None, reason: str, message: str) -> int:
    """Write why the processes of a pod died, once; return how many rows of workers it was written on.

    `before` is when the container ended: a process that began later is another life in the same pod. None means all.
    It declares nobody dead; the leader does that by its own watching.
    """
    death = {"reason": reason, "message": message[:_MOST_MESSAGE]}
    found = await tx.fetch(statement("note_death"), pod_uid, before, msgspec.json.encode(death).decode())
    return len(found)
