"""Latency: an idle worker, one task every 20 ms over REST by the SDK; from before the submit call to the handler."""

import asyncio
import time

from bench.tasks import stamp
from taskflow_queue import Client

WARM_UP, COUNT, PACE_SECONDS = 20, 300, 0.02


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def latencies(client: Client) -> list[float]:
    """Submit to handler start, milliseconds each."""
    submit = stamp.options(client=client)
    sent = []
    for _ in range(WARM_UP + COUNT):
        began = time.time_ns()
        handle = await submit.submit_async()
        sent.append((began, handle))
        await asyncio.sleep(max(PACE_SECONDS - (time.time_ns() - began) / 1e9, 0))
    return [(await handle.result_async(timeout=30) - began) / 1e6 for began, handle in sent[WARM_UP:]]
