"""The smallest task there is, one that can wait, and one that says how far it is.

Submit one:  taskflow task submit examples.hello:hello name=you --watch
"""

from __future__ import annotations

import asyncio
import time

from taskflow_queue import log, task, track


@task
def hello(name: str = "world") -> str:
    """Greet."""
    return f"Hello, {name}!"


@task
async def nap(seconds: float = 1.0) -> float:
    """Wait without keeping a process busy: a child runs a hundred of these at once."""
    await asyncio.sleep(seconds)
    return seconds


@task(max_attempts=1)
def countdown(start: int = 10, pause: float = 0.5) -> str:
    """Count down, telling how far it is, and stop between two numbers when somebody cancels it."""
    for number in track(range(start, 0, -1)):
        log(number)
        time.sleep(pause)
    return "lift-off"
