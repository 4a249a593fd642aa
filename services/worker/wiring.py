"""How the parts of a worker are put together, and what its signals do."""

from __future__ import annotations

import asyncio
import gc
import importlib
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import uvloop

from core import telemetry
from core.config import settings
from core.pool import Database
from services.worker import probes
from services.worker.children import Children
from services.worker.worker import Worker

if TYPE_CHECKING:
    import socket

    from services.worker.child import Child, ChildSettings

_ANSWER_SECONDS: Final = 10.0  # an answer that never comes holds up its tasks for so long: they must restart in 20
log = telemetry.get_logger("worker")


def work(made: ChildSettings, first: list[tuple[Child, socket.socket]]) -> None:
    """Run the worker around its first children until it is told to stop."""
    telemetry.configure("worker")
    # Thousands of small values live and die with each batch, none in cycles: looking for those so often is waste.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
    uvloop.run(_work(Children(made, count=settings.worker_children), first))


async def _work(children: Children, first: list[tuple[Child, socket.socket]]) -> None:
    async with AsyncExitStack() as stack:
        # Claims, polls and finishes of both lanes, and what a beat's answer asks for, at the same time.
        database = await stack.enter_async_context(
            Database(settings.database_url, name="tf-worker", size=6, command_seconds=_ANSWER_SECONDS)
        )
        # A beat is worth nothing once it is old, so nobody waits for its disk.
        beats = await stack.enter_async_context(
            Database(settings.database_url, name="tf-worker-beat", size=1, synchronous_commit="off")
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
        )
        stack.enter_context(telemetry.bound(worker=worker.identity.name))
        stack.callback(children.close)
        stack.callback(probes.serve(settings.metrics_port, lambda: worker.ready))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await children.attach_first(first, worker.supervisor)
        redis = loop.create_task(_connect(worker, stack)) if settings.redis else None
        try:
            await worker.run()
        finally:
            if redis is not None:
                redis.cancel()


async def _connect(worker: Worker, stack: AsyncExitStack) -> None:
    """Join Redis beside the first tasks: its library takes longer to import than a poll to find work."""
    streams = await asyncio.to_thread(importlib.import_module, "core.streams")
    await worker.connect(await stack.enter_async_context(streams.References(seconds=1.0)))
