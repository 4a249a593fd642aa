"""The scaling loop: one look at PostgreSQL for all queues, then each TaskQueue once round.

It comes round every poll, and at once when a task came to a queue without workers or the cluster changed. It is level-
triggered: whatever a tick did not do, the next one does. What fails for one TaskQueue does not stop the others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from core.errors import Deposed, TaskFlowError, Unavailable
from core.pool import heed_cancel
from services.operator import looking, reporting
from services.operator.cluster import PODS, TASKQUEUES, Json, Kind
from services.operator.deaths import DeathNotes
from services.operator.desk import Desk, Facts, Seen
from services.operator.listing import NamespaceLists
from services.operator.mirror import Mirror
from services.operator.observe import workers_by_pod
from services.operator.reconcile import reconcile
from services.operator.spec import TaskQueueSpec, queue_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUEUE_SECONDS: Final = 30.0  # for one TaskQueue in one tick; each of its requests has a shorter bound
SOON_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.2  # what changes together is looked at together
STILL_SECONDS: Final = 90.0  # a loop that stood still for longer will not go on by itself
_AT_ONCE: Final = 8
_MOST_BACKOFF: Final = 30.0
log = telemetry.get_logger("operator")


class ScalingLoop:
    """The loop of one term."""

    def __init__(self, desk: Callable[[Mirror], Desk], *, namespaces: Sequence[str | None], poll: float) -> None:
        """Take what makes the desk once the mirror is there, and how many seconds lie between two ticks."""
        self._wake = asyncio.Event()
        self._deaths = DeathNotes()
        self.mirror = Mirror(self._heard)
        self._desk = desk(self.mirror)
        self.lists = NamespaceLists(self._desk.cluster, self.mirror, self._desk.clock, namespaces)
        self._poll = poll
        self._seen: dict[str, Seen] = {}
        self._gone: OrderedDict[str, str] = OrderedDict()  # uid of a TaskQueue that is no more, and its queue
        self._unchecked: set[str | None] = set()  # namespaces that were listed, and not yet compared with PostgreSQL
        self.moved_at = self._desk.clock.monotonic()

    def wake(self) -> None:
        """Come round soon."""
        self._wake.set()

    def renew(self, namespace: str | None) -> None:
        """List a namespace anew, soon: something may have been missed there."""
        self.lists.renew(namespace)
        self.wake()

    def still(self) -> bool:
        """Tell whether the loop stands still, for the probe."""
        return self._desk.clock.monotonic() - max(self.moved_at, self.lists.moved_at) > STILL_SECONDS

    async def run(self) -> None:
        """Tick until cancelled. Raises Deposed when the term is over."""
        failures = 0
        while True:
            soon = False
            try:
                soon = await self.tick()
                failures = 0
            except Deposed:
                raise
            except TaskFlowError as away:
                failures += 1
                log.warning("a tick failed, trying again", error=str(away), failures=failures)
            except Exception:
                failures += 1
                log.exception("a tick failed, trying again", failures=failures)
            heed_cancel()
            self.moved_at = self._desk.clock.monotonic()
            pause = min(self._poll * 2.0 ** min(failures, 5), _MOST_BACKOFF) if failures else self._poll
            await self._rest(min(SOON_SECONDS if soon else pause, pause, self.lists.seconds_left()))

    async def tick(self) -> bool:
        """Go once round all TaskQueues; True when something is under way. Raises Deposed, Unavailable."""
        self._unchecked.update(await self.lists.refresh())
        await self._find_gone()
        await self._desk.rivals.refresh()
        everything = self.mirror.all(TASKQUEUES)
        # In a namespace that cannot be listed, nothing is decided on what was there once.
        taskqueues = [one for one in everything if self.lists.serves(one["metadata"]["namespace"])]
        facts, workers = await self._facts(taskqueues)
        await self._write_deaths(workers)
        limit = asyncio.Semaphore(_AT_ONCE)
        rounds = await asyncio.gather(
            *(self._one(limit, taskqueue, facts) for taskqueue in taskqueues), return_exceptions=True
        )
        for over in rounds:
            if isinstance(over, BaseException):  # Deposed only: `_one` lets nothing else through
                raise over
        await self._release_gone()
        await self._desk.events.flush()
        there = {taskqueue["metadata"]["uid"] for taskqueue in everything}
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in there}
        return any(rounds) or bool(len(self._deaths))

    async def _one(self, limit: asyncio.Semaphore, taskqueue: Json, facts: Facts) -> bool:
        about = taskqueue["metadata"]
        seen = self._seen.setdefault(about["uid"], Seen())
        async with limit:
            try:
                async with asyncio.timeout(QUEUE_SECONDS):
                    soon = await reconcile(self._desk, seen, taskqueue, facts)
                seen.failures = 0
                return soon
            except Deposed:
                raise
            except Exception as failed:  # noqa: BLE001 - whatever is wrong with one of them, the others go on
                seen.failures += 1
                expected = isinstance(failed, TaskFlowError | TimeoutError)
                tell = log.warning if expected else log.exception
                tell("a TaskQueue failed, the others go on", taskqueue=about["name"], namespace=about["namespace"],
                     error=str(failed) or type(failed).__name__, failures=seen.failures)  # fmt: skip
                with suppress(Exception):  # what was to be said is in the log
                    async with asyncio.timeout(QUEUE_SECONDS):
                        await reporting.write_failure(self._desk, seen, taskqueue, failed)
                return False
            finally:
                self.moved_at = self._desk.clock.monotonic()

    async def _facts(self, taskqueues: Sequence[Json]) -> tuple[Facts, Sequence[queue.PodWorker] | None]:
        """One statement for the depth of all queues, one for all workers. Raises Deposed."""
        specs: dict[str, TaskQueueSpec] = {}
        for taskqueue in taskqueues:
            with suppress(ValueError):
                spec = TaskQueueSpec.model_validate(taskqueue["spec"])
                specs[queue_name(spec, taskqueue["metadata"]["name"])] = spec
        pods = self.mirror.pods()
        try:
            async with self._desk.term.transaction() as tx:
                found = await queue.demand(tx, sorted(specs), most=looking.most(list(specs.values())))
                workers = await queue.pod_workers(tx)
        except Deposed:
            raise
        except Unavailable as away:
            log.warning("the depth of the queues is not known, holding", error=str(away))
            return Facts(demand=None, workers=None, pods=pods), None
        demand = {one.queue: one for one in found}
        return Facts(demand=demand, workers=workers_by_pod(workers), pods=pods), workers

    async def _write_deaths(self, workers: Sequence[queue.PodWorker] | None) -> None:
        if workers is None or not len(self._deaths):
            return
        try:
            await self._deaths.write(self._desk.term, workers)
        except Deposed:
            raise
        except Unavailable as away:
            log.warning("causes of death wait", count=len(self._deaths), error=str(away))

    async def _find_gone(self) -> None:
        """Find queues whose TaskQueue went while nobody looked: another one could never have them. Raises Deposed.

        Only in namespaces that were just listed is anything known to be gone.
        """
        if not self._unchecked:
            return
        there = {taskqueue["metadata"]["uid"] for taskqueue in self.mirror.all(TASKQUEUES)}
        try:
            async with self._desk.term.transaction() as tx:
                recorded = await queue.recorded_taskqueues(tx)
        except Deposed:
            raise
        except Unavailable:
            return
        for one in recorded:
            if one.uid not in there and (None in self._unchecked or one.namespace in self._unchecked):
                self._gone[one.uid] = one.queue
        self._unchecked.clear()

    async def _release_gone(self) -> None:
        """Forget in PostgreSQL the TaskQueues that went without our finalizer."""
        while self._gone:
            uid, name = next(iter(self._gone.items()))
            try:
                async with self._desk.term.transaction() as tx:
                    await queue.release_taskqueue(tx, name, uid)
            except Deposed:
                raise
            except Unavailable:
                return
            del self._gone[uid]

    def heard(self, kind: Kind, body: Json, gone: bool) -> None:  # noqa: FBT001 - the shape of a change
        """Take what a watch saw."""
        self.mirror.put(kind, body, gone=gone)

    def _heard(self, kind: Kind, copy: Json, gone: bool) -> None:  # noqa: FBT001 - the shape of a change
        if kind is PODS:
            self._deaths.see(copy, gone=gone)
        elif kind is TASKQUEUES and gone:
            with suppress(ValueError):
                spec = TaskQueueSpec.model_validate(copy["spec"])
                self._gone[copy["metadata"]["uid"]] = queue_name(spec, copy["metadata"]["name"])
        self.wake()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        # What comes within a moment belongs together, and no storm of changes makes the loop spin.
        await self._desk.clock.sleep(GATHER_SECONDS)
        self._wake.clear()
