"""Tasks for the tests of the cluster; a ConfigMap brings this file into worker pods."""

from __future__ import annotations

import asyncio
import time

from taskflow_queue import task


@task
def work(value: int, seconds: float = 0.0) -> int:
    """Take that long, then give the value back."""
    time.sleep(seconds)
    return value


@task
async def nap(value: int, seconds: float = 0.0) -> int:
    """The same, with many beside it."""
    await asyncio.sleep(seconds)
    return value


@task
def eat(value: int, megabytes: int, seconds: float = 0.0) -> int:
    """Use that much memory for that long."""
    held = bytearray(megabytes << 20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(seconds)
    return value
