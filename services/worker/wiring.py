"""How the parts of a worker are put together, and what its signals do."""

from __future__ import annotations

import asyncio
import importlib
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import uvloop

from core import garbage, probes, telemetry
from core.config import settings
from core.pool import Database
from services.worker import reaping
from services.worker.children import Children
from services.worker.claiming import STATEMENT_SECONDS
from services.worker.worker import Worker

if TYPE_CHECKING:
    import socket

    from services.worker.allowance import Budget
    from services.worker.child import Child, ChildSettings

_ANSWER_SECONDS: Final = 10.0  # an answer that never comes holds up its tasks for so long: they must restart in 20
_LOCK_WAIT: Final = "1s"  # a row that is locked for longer is left to later tries, and everything else goes on
log = telemetry.get_logger("worker")


def work(made: ChildSettings, budget: Budget, first: list[tuple[Child, socket.socket]]) -> None:
    """Run the worker around its first children until it is told to stop."""
    telemetry.configure("worker")
    garbage.collect_seldom()
    uvloop.run(_work(Children(made, count=settings.worker_children, budget=budget), first))


async def _work(children: Children, first: list[tuple[Child, socket.socket]]) -> None:
    async with AsyncExitStack() as stack:
        # Claims, polls and finishes of both lanes, and what a beat's answer asks for, at the same time.
        database = await stack.enter_async_context(
            Database(
                settings.database_url,
                name="tf-worker",
                size=6,
                command_seconds=_ANSWER_SECONDS,
                lock_timeout=_LOCK_WAIT,
                statement_timeout=f"{STATEMENT_SECONDS:g}s",
            )
        )
        # A beat is worth nothing once it is old, so nobody waits for its disk.
        beats = await stack.enter_async_context(
            Database(
                settings.database_url, name="tf-worker-beat", size=1, synchronous_commit="off", lock_timeout=_LOCK_WAIT
            )
        )
        worker = Worker(
            database,
            beats,
            children,
            queues=settings.worker_queues,
            slots=settings.worker_slots,
            interval=settings.heartbeat_interval_seconds,
            lease=settings.lease_seconds,
            drain_seconds=settings.worker_drain_seconds,
            facts=_facts(),
        )
        stack.enter_context(telemetry.bound(worker=worker.identity.name))
        stack.callback(children.close)
        loop = asyncio.get_running_loop()
        pulse = probes.Pulse()
        stack.callback(loop.create_task(pulse.beat()).cancel)
        stack.callback(probes.serve(settings.metrics_port, worker.probed, pulse.alive, note=worker.finisher.note))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await children.attach_first(first, worker.supervisor)
        stack.callback(loop.create_task(reaping.reap_orphans(children)).cancel)
        redis = loop.create_task(_connect(worker, stack)) if settings.redis else None
        try:
            await worker.run()
        finally:
            if redis is not None:
                redis.cancel()


def _facts() -> dict[str, str]:
    """Where this process runs, as far as the settings say."""
    said = {
        "pod": settings.pod_name,
        "pod_uid": settings.pod_uid,
        "namespace": settings.namespace,
        "node": settings.node_name,
        "template": settings.pod_template,
    }
    return {name: value for name, value in said.items() if value}


async def _connect(worker: Worker, stack: AsyncExitStack) -> None:
    """Join Redis beside the first tasks: its library takes longer to import than a poll to find work."""
    references = await asyncio.to_thread(importlib.import_module, "core.references")
    await worker.connect(await stack.enter_async_context(references.References(seconds=1.0)))
