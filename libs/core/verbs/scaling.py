"""What the operator looks at: how much of each queue waits for a worker, and which workers live in which pod."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core.pool import Tx
from core.sql import call, statement
from core.verbs.queues import COUNT_MOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a queue asks of its workers. Counts stop at the `most` that was asked for; `capped` says that one did.

    A type is known when a live worker of the queue announces it; without live workers, when the queue's newest
    worker did; every type is known while no worker has ever served the queue.
    """

    queue: str
    paused: bool
    max_concurrent: int  # 0 is no cap
    pending: int  # every PENDING task, due or not
    queued: int  # waits for a worker: QUEUED of known types, and due gated ones that the caps would let through
    running: int  # IN_PROGRESS and CANCELLING
    failed: int  # ended FAILED or QUARANTINED within the last hour
    unknown: int  # QUEUED, or gated and due, of types that are not known
    unknown_types: tuple[str, ...]  # up to five of them
    unknown_seconds: float | None  # how long the oldest of `unknown` waits; of the first `most`, when there are more
    announced_seconds: float | None  # since a worker of the queue registered last; None: nobody ever did
    announced_template: str  # the hash of that worker's pod template; "": it did not name one
    capped: bool
    oldest_queued_seconds: float | None  # how long the oldest of `queued` waits, on the database's clock
    finished_minute: int  # ended within the last 60 s, whatever their end
    run_seconds: float | None  # mean run time of the last COMPLETED ones (200 at most), cut at their 95th percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWorker:
    """A worker process that is not dead and said which pod it lives in. `beat_age` is for people, not for decisions."""

    worker: UUID
    pod: str
    pod_uid: str
    namespace: str
    queues: Sequence[str]
    state: str  # alive, draining or cordoned
    running: int  # attempts that it holds
    beat_age: float  # seconds, on the database's clock
    created_at: datetime


async def demand(tx: Tx, queues: Sequence[str] | None = None, *, most: int = COUNT_MOST) -> list[Demand]:
    """Return what `queues`, or all, ask of their workers, in one statement; each count stops at `most`.

    A queue that no task and no TaskQueue has named yet does not come back.
    """
    found = await tx.fetch(statement("demand"), None if queues is None else list(queues), most)
    return [Demand(**{**row, "unknown_types": tuple(row["unknown_types"])}) for row in map(dict, found)]


async def pod_workers(tx: Tx) -> list[PodWorker]:
    """Return the workers that are not dead and live in a pod, with how many attempts each holds."""
    return [PodWorker(**dict(row)) for row in await tx.fetch(statement("pod_workers"))]


async def served_queues(tx: Tx) -> frozenset[str]:
    """Return the queues that some worker takes tasks of just now: neither dead nor draining nor cordoned."""
    return frozenset(row["queue"] for row in await tx.fetch(statement("served_queues")))


async def queue_concurrency(tx: Tx, queue: str) -> int | None:
    """Return how many child processes a worker of `queue` shall have; None when its TaskQueue does not say."""
    found = await tx.fetchval(call("queue_concurrency"), queue)
    return None if found is None else int(found)
