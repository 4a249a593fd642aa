"""The operator's entry point: `python -I -u -m services.operator.main`. Wiring only.

Several may run: a Lease chooses one, the others stand by. One that led and does so no more ends its process: a fresh
one is the cleanest way to forget what it believed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from core import clock, garbage, kube, probes, queue_manager, telemetry
from core.config import require, settings
from core.errors import Deposed, SettingError, TaskFlowError, Unavailable
from core.kubernetes_lease import KubernetesLease
from core.leadership import Leadership, Term
from core.pool import Database, heed_cancel
from core.process_protection import protect
from core.waking import listen
from services.operator import default_queue
from services.operator.cluster import Cluster
from services.operator.conflicts import Rivals
from services.operator.desk import Desk
from services.operator.events import Events
from services.operator.loop import ScalingLoop
from services.operator.namespaces import own_release, watched
from services.operator.policy import Rules
from services.operator.watching import NamespaceWatches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.operator.mirror import Mirror

_NEEDED: Final = (
    "database_url", "metrics_port", "log_level", "namespace", "lease_name", "pod_name", "watch_namespaces",
    "release", "worker_image", "worker_pod_file", "worker_secrets", "worker_claims", "poll_seconds", "default_queue",
)  # fmt: skip
_AGAIN_SECONDS: Final = 5.0
_LOST: Final = 1
log = telemetry.get_logger("operator")


class Life:
    """What the probes ask: in another thread, so it only ever reads."""

    def __init__(self) -> None:
        self.pulse = probes.Pulse()
        self.loop: ScalingLoop | None = None
        self.leading = False

    def ready(self) -> bool:
        """Not while this process leads and serves no namespace; the log says why."""
        loop = self.loop
        return not self.leading or (loop is not None and loop.lists.serves_any())

    def alive(self) -> bool:
        return self.pulse.alive() and not (self.loop is not None and self.loop.still())


def fragment() -> dict[str, Any]:
    """Return the part of a worker's pod that is the same for all. Raises SettingError."""
    name = settings.worker_pod_file
    if not name:
        return {}
    try:
        found = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as unreadable:
        message = f"TASKFLOW_WORKER_POD_FILE cannot be read: {unreadable}"
        raise SettingError(message, fix="it must be a JSON object", field="worker_pod_file") from unreadable
    if not isinstance(found, dict):
        raise SettingError("TASKFLOW_WORKER_POD_FILE holds no JSON object", field="worker_pod_file")
    return found


async def lead(api: Any, term: Term, keeper: asyncio.Task[None], namespaces: Sequence[str | None], life: Life) -> None:
    """Do the operator's work until the term is over, or any part of it ends. Raises Deposed."""
    work = asyncio.create_task(_work(api, term, namespaces, life), name="work")
    try:
        await asyncio.wait({work, keeper}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        work.cancel()
        await asyncio.wait({work})
    for part in (keeper, work):
        if part.done() and not part.cancelled():
            part.result()  # raises what ended it


async def _work(api: Any, term: Term, namespaces: Sequence[str | None], life: Life) -> None:
    cluster = Cluster(api)
    life.leading = True
    await _until_served(cluster, namespaces)

    common = fragment()
    rules = Rules(
        secrets=settings.worker_secrets,
        claims=settings.worker_claims,
        account=(common.get("spec") or {}).get("serviceAccountName", ""),
    )

    def desk(mirror: Mirror) -> Desk:
        return Desk(
            cluster=cluster,
            term=term,
            mirror=mirror,
            rivals=Rivals(cluster, clock.system, namespaces),
            events=Events(cluster, clock.system, instance=settings.pod_name),
            clock=clock.system,
            fragment=common,
            image=settings.worker_image,
            rules=rules,
            release=own_release(),
        )

    loop = ScalingLoop(desk, namespaces=namespaces, poll=settings.poll_seconds)
    watches = NamespaceWatches(namespaces, loop, clock.system)
    gauge = telemetry.metrics().leader.labels("operator")
    parts = {
        asyncio.create_task(loop.run(), name="scaling"),
        asyncio.create_task(_listen(loop), name="listening"),
        asyncio.create_task(watches.run(), name="watching"),
    }
    made = default_queue.ensure(
        cluster, settings.namespace, settings.default_queue, clock.system, release=own_release()
    )
    making = asyncio.create_task(made, name="default queue")
    try:
        gauge.set(1)
        life.loop = loop
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gauge.set(0)
        life.loop = None
        for part in (*parts, making):
            part.cancel()
        await asyncio.wait({*parts, making})
    for ended in parts:
        if ended.done() and not ended.cancelled():
            ended.result()  # raises what ended it
    raise Deposed("a part of the operator ended by itself")


async def _listen(loop: ScalingLoop) -> None:
    """Wake the loop when a task comes to a queue without workers."""
    async with aclosing(listen(settings.database_url)) as said:
        async for _ in said:
            loop.wake()


async def _until_served(cluster: Cluster, namespaces: Sequence[str | None]) -> None:
    """Wait until the API server knows TaskQueues and lets us list those of a namespace: kopf looks only once."""
    said = ""
    while True:
        try:
            await default_queue.probe(cluster, namespaces)
            return
        except TaskFlowError as missing:
            if str(missing) != said:
                log.warning("TaskQueues cannot be listed, waiting", why=str(missing))
            said = str(missing)
        heed_cancel()
        await clock.system.sleep(_AGAIN_SECONDS)


async def _operate(stop: asyncio.Event, life: Life) -> int:
    namespaces = watched()
    fragment()  # a file that cannot be read is told at once, not by the first leader
    holder = uuid4()
    name = f"{settings.pod_name or 'operator'}_{holder}"
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube.client())
        candidate = Database(settings.database_url, name="tf-candidate", size=2, hot=False, statement_timeout="3s")
        db = await stack.enter_async_context(candidate)
        lease = KubernetesLease(api, kube.namespace(), settings.lease_name, name)
        leadership = Leadership(settings.database_url, holder, db=db, election=lease, name=queue_manager.OPERATOR)
        standing = asyncio.create_task(_stand(api, leadership, namespaces, life), name="standing")
        stopping = asyncio.create_task(stop.wait())
        log.info("ready", holder=name)
        await asyncio.wait({standing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (standing, stopping):
            task.cancel()
        await asyncio.wait({standing, stopping})
        with suppress(asyncio.CancelledError):
            return standing.result()
    return 0


async def _stand(api: Any, leadership: Leadership, namespaces: Sequence[str | None], life: Life) -> int:
    """Stand by, then lead once."""
    try:
        async with leadership.term() as (term, keeper):
            # In a task of its own: what it leaves behind must not end the giving back of the Lease.
            await asyncio.create_task(lead(api, term, keeper, namespaces, life))
    except (Deposed, Unavailable) as lost:
        log.warning("not leading any more, ending this process", why=str(lost))
        return _LOST
    return 0


async def _serve(life: Life) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    beating = asyncio.create_task(life.pulse.beat())
    try:
        return await _operate(stop, life)
    finally:
        beating.cancel()
        log.info("stopped")


def main() -> int:
    """Operate until SIGTERM: 0; 1 when another leads by now; 2 for a wrong setting."""
    life = Life()
    try:
        protect()
        require(*_NEEDED)
        telemetry.configure("operator")
        garbage.collect_seldom()
        stop_probes = probes.serve(settings.metrics_port, life.ready, life.alive)
    except SettingError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - one line, for a person
        return 2
    try:
        return asyncio.run(_serve(life))
    except SettingError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - as above
        return 2
    finally:
        stop_probes()


if __name__ == "__main__":
    sys.exit(main())
