"""Pieces of the leader's housekeeping that are more than one verb. Each takes an open transaction, and commits nothing.

What is done when is for services/scheduler; what is dead, overdue or unrunnable is decided in core/domain/watching.py.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec

from core import queue_manager as queue
from core.domain.lifecycle import Cause
from core.domain.retry import Failure, RetryPolicy, decide
from core.domain.task import Ending, Moved, Reason
from core.pool import Tx
from core.sql import statement

OVERDUE_GRACE = 30.0  # the worker measures and kills by itself; the leader is only the backstop
_DEFAULT_ATTEMPTS = RetryPolicy().max_attempts


async def end_overdue(
    tx: Tx, found: Sequence[queue.Overdue], over: Collection[tuple[UUID, int]], *, rand: float
) -> list[Moved]:
    """End the attempts of `found` that are `over` as timed out, under their own fence; a late outcome is refused."""
    endings = [_timed_out(one, rand=rand) for one in found if (one.id, one.attempt) in over]
    return await queue.finish(tx, endings, text=statement) if endings else []


def _timed_out(one: queue.Overdue, *, rand: float) -> Ending:
    policy = RetryPolicy(max_attempts=one.max_attempts or _DEFAULT_ATTEMPTS)
    decision = decide(policy, Failure.RETRYABLE, failures=one.retry_count, rand=rand)
    says = f"it ran beyond its limit of {one.timeout_seconds:g} s, and its worker did not stop it"
    return Ending(
        id=one.id,
        attempt=one.attempt,
        claim=one.claim,
        cause=Cause.RETRY if decision.again else Cause.GIVE_UP,
        reason=Reason.TIMEOUT,
        error=msgspec.json.encode({"type": "TimeLimitExceeded", "message": says, "traceback": None}).decode(),
        delay=decision.delay,
        failures=decision.charge,
    )


async def keep_partitions(tx: Tx) -> list[str]:
    """Make the coming days' partitions and drop old ones, without ever standing in a writer's way for long."""
    await tx.execute("set local lock_timeout = '2s'")
    return await queue.ensure_partitions(tx)
