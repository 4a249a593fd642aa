"""Small readings for the API: what a lost INSERT left, and why a task waits."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core.domain.lifecycle import WAITING, TaskStatus
from core.domain.task import FREE_WORKER_DEATHS, Submitted
from core.domain.waiting import Facts, Waiting, why
from core.pool import Tx
from core.sql import statement
from core.verbs import rows


async def born(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, Submitted]:
    """Return those of `ids` that are there: the way to learn what became of a COMMIT whose answer was lost."""
    return rows.born(await tx.fetch(statement("born"), list(ids)))


async def explain(tx: Tx, task: Mapping[str, Any]) -> Waiting | None:
    """Say why `task`, as `search.get` gave it, has not started; None when it has, or has ended."""
    if task["status"] not in WAITING:
        return None
    row = await tx.fetchrow(
        statement("waiting_facts"), task["queue"], task["type"], task["owner_id"], task["concurrency_key"]
    )
    return why(
        Facts(
            status=TaskStatus(task["status"]),
            type=task["type"],
            queue=task["queue"],
            scheduled_at=task["scheduled_at"],
            expires_at=task["expires_at"],
            attempt=task["attempt"],
            permit=task["permit"],
            solo=task["worker_deaths"] >= FREE_WORKER_DEATHS,
            concurrency_key=task["concurrency_key"],
            **dict(row),
        )
    )
