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
from core.errors import Conflict, Deposed, NotFound, TaskFlowError, Unavailable
from core.pool import heed_cancel
from services.operator import looking, reporting
from services.operator.cluster import PODS, TASKQUEUES, Json, Kind
from services.operator.deaths import DeathNotes
from services.operator.desk import Desk, Facts, Seen
from services.operator.kopf_app import OURS
from services.operator.mirror import KINDS, Mirror
from services.operator.observe import workers_by_pod
from services.operator.reconcile import reconcile
from services.operator.spec import TaskQueueSpec, queue_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RELIST_SECONDS: Final = 600.0
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
        self._namespaces, self._poll = namespaces, poll
        self._seen: dict[str, Seen] = {}
        self._gone: OrderedDict[str, str] = OrderedDict()  # uid of a TaskQueue that is no more, and its queue
        self._listed = float("-inf")
        self.moved_at = self._desk.clock.monotonic()

    def wake(self) -> None:
        """Come round soon."""
        self._wake.set()

    def still(self) -> bool:
        """Tell whether the loop stands still, for the probe."""
        return self._desk.clock.monotonic() - self.moved_at > STILL_SECONDS

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
            await self._rest(min(SOON_SECONDS, pause) if soon else pause)

    async def tick(self) -> bool:
        """Go once round all TaskQueues; True when something is under way. Raises Deposed, Unavailable."""
        await self._relist()
        await self._desk.rivals.refresh()
        taskqueues = self.mirror.all(TASKQUEUES)
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
        there = {taskqueue["metadata"]["uid"] for taskqueue in taskqueues}
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

        Only those of the namespaces that were just listed are known to be gone.
        """
        there = {taskqueue["metadata"]["uid"] for taskqueue in self.mirror.all(TASKQUEUES)}
        try:
            async with self._desk.term.transaction() as tx:
                recorded = await queue.recorded_taskqueues(tx)
        except Deposed:
            raise
        except Unavailable:
            return
        for one in recorded:
            if one.uid not in there and (None in self._namespaces or one.namespace in self._namespaces):
                self._gone[one.uid] = one.queue

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

    async def _relist(self) -> None:
        """Read everything anew every ten minutes: what a watch lost is found then. Raises Unavailable."""
        if self._desk.clock.monotonic() - self._listed < RELIST_SECONDS:
            return
        for kind in KINDS:
            self.mirror.listing(kind)
            found: list[Json] = []
            for namespace in self._namespaces:
                selector = "" if kind is TASKQUEUES else OURS
                try:
                    found += await self._desk.cluster.items(kind, namespace, selector=selector)
                except (NotFound, Conflict) as missing:
                    raise Unavailable(f"{kind.plural} cannot be listed: {missing}") from missing
            self.mirror.replace(kind, found)
        await self._find_gone()
        self._listed = self._desk.clock.monotonic()

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
