"""What the demo submits besides `examples.wordcount`: tasks that outlast a worker's lease."""

from __future__ import annotations

import time

from taskflow_queue import task


@task(queue="slow")
def slow(seconds: float, value: int) -> int:
    """Take that long, then give the value back."""
    time.sleep(seconds)
    return value
