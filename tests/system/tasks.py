"""Tasks that write down what they do, for the history checker (history.py)."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid

from taskflow_queue import task
from taskflow_queue.context import current
from taskflow_queue.errors import RetryLater


def note(history: str, word: str, **more: object) -> None:
    """One line, appended in one write, so that processes do not cut into each other's."""
    context = current()
    line = {"word": word, "task": context.task_id, "attempt": context.attempt, "pid": os.getpid(), **more}
    line["at"] = time.monotonic()
    handle = os.open(history, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(handle, json.dumps(line).encode() + b"\n")
    finally:
        os.close(handle)


@task(queue="sync", initial=0.05)
def work(history: str, seconds: float = 0.0) -> str:
    """Take that long; the result is unique to this very execution."""
    note(history, "start")
    time.sleep(seconds)
    value = uuid.uuid4().hex
    note(history, "end", value=value)
    return value


@task(queue="async", initial=0.05)
async def awork(history: str, seconds: float = 0.0) -> str:
    """Do it on the loop, with many beside it."""
    note(history, "start")
    await asyncio.sleep(seconds)
    value = uuid.uuid4().hex
    note(history, "end", value=value)
    return value


@task(queue="async", initial=0.05)
async def abeside(history: str, until: str) -> str:
    """Be there until that file is, or for a minute."""
    note(history, "start")
    end = time.monotonic() + 60
    while not os.path.exists(until) and time.monotonic() < end:  # noqa: ASYNC240, PTH110 - a look that takes no time
        await asyncio.sleep(0.02)
    value = uuid.uuid4().hex
    note(history, "end", value=value)
    return value


@task(queue="sync", initial=0.05)
def fails(history: str) -> str:
    """Fail once, then succeed."""
    note(history, "start")
    if current().retry_count == 0:
        message = "the first time"
        raise ConnectionError(message)
    value = uuid.uuid4().hex
    note(history, "end", value=value)
    return value


@task(queue="sync")
def snoozes(history: str) -> str:
    """Ask for another time once, then succeed."""
    note(history, "start")
    if current().attempt == 1:
        raise RetryLater(0.1)
    value = uuid.uuid4().hex
    note(history, "end", value=value)
    return value


@task(queue="async")
async def again(history: str, seconds: float) -> str:
    """Ask for another time once, that many seconds later; then succeed."""
    note(history, "start")
    if current().attempt == 1:
        raise RetryLater(seconds)
    value = uuid.uuid4().hex
    note(history, "end", value=value)
    return value


@task(queue="sync")
def key(history: str, failures: int = 2, seconds: float = 0.0) -> str:
    """Fail so often, and say each time which key the task has."""
    note(history, "start", key=current().idempotency_key)
    time.sleep(seconds)
    if current().attempt <= failures:
        raise RetryLater(0.05)
    value = current().idempotency_key
    note(history, "end", value=value)
    return value
