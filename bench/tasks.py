"""What the benchmark runs: nothing, as fast as it goes."""

import time

from taskflow_queue import task


@task(queue="bench", name="bench:noop")
async def noop() -> None:
    """Do nothing."""


@task(queue="bench", name="bench:sync_noop")
def sync_noop() -> None:
    """Do nothing, on a thread."""


@task(queue="bench", name="bench:stamp")
async def stamp(_number: int = 0) -> int:
    """Return the nanosecond at which the handler began."""
    return time.time_ns()
