"""Tasks for tests, good and bad. Whatever a handler in the wild may do to its worker, one of these does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from taskflow_queue import task
from taskflow_queue.context import Context, current
from taskflow_queue.errors import RetryLater, SoftTimeout


@task
def noop() -> None:
    """Nothing, in the sync lane."""


@task
async def anoop() -> None:
    """Nothing, in the async lane."""


@task
def echo(value: Any = None) -> Any:
    """Give back what came."""
    return value


@task(initial=0.0)
async def acancel_all(seconds: float = 0.0) -> None:
    """Cancel every asyncio task of the process, this one included; with 0 s before others take their first step."""
    if seconds:
        await asyncio.sleep(seconds)
    for one in asyncio.all_tasks():
        one.cancel()
    await asyncio.sleep(60)


@task
async def aecho(value: Any = None) -> Any:
    """Give back what came."""
    return value


@task
def who() -> dict[str, Any]:
    """Say who ran it."""
    context = current()
    return {"id": context.idempotency_key, "attempt": context.attempt, "pid": os.getpid(), "queue": context.queue}


@task
def sleep(seconds: float = 1.0, mark: str | None = None) -> float:
    """Sleep in one system call; `mark` is a file to which a line is added at the start and at the end."""
    current().progress(0.0, "begun")
    _mark(mark, "start")
    time.sleep(seconds)
    _mark(mark, "end")
    return seconds


@task
def stay(until: str, mark: str | None = None) -> bool:
    """Stay until that file is there, or for a minute."""
    _mark(mark, "start")
    for _ in range(6000):
        if Path(until).exists():
            break
        time.sleep(0.01)
    _mark(mark, "end")
    return True


@task
async def abide(until: str, mark: str | None = None) -> bool:
    """Stay on the loop."""
    _mark(mark, "start")
    for _ in range(6000):
        if Path(until).exists():  # noqa: ASYNC240 - a look that takes no time
            break
        await asyncio.sleep(0.01)
    _mark(mark, "end")
    return True


@task
async def asleep(seconds: float = 1.0, mark: str | None = None) -> float:
    """Sleep on the loop."""
    _mark(mark, "start")
    await asyncio.sleep(seconds)
    _mark(mark, "end")
    return seconds


@task(initial=0.0)
def fail(message: str = "as asked") -> None:
    """Raise."""
    raise ValueError(message)


@task(initial=0.0)
async def afail(message: str = "as asked") -> None:
    """Raise."""
    raise ValueError(message)


@task(initial=0.0)
def fail_first(times: int = 1) -> int:
    """Raise in the first attempts."""
    if current().attempt <= times:
        message = f"attempt {current().attempt} fails"
        raise ConnectionError(message)
    return current().attempt


@task(give_up_on=KeyError)
def give_up() -> None:
    """Raise what makes another attempt pointless."""
    raise KeyError("never")


@task(retry_on=ConnectionError)
def not_retryable() -> None:
    """Raise what `retry_on` does not name."""
    raise ValueError("not one of those")


@task
def later(seconds: float = 0.2) -> int:
    """Ask for another time, once."""
    if current().attempt == 1:
        raise RetryLater(seconds)
    return current().attempt


@task
def leave() -> None:
    """SystemExit."""
    sys.exit(3)


@task
async def aleave() -> None:
    """SystemExit on the loop."""
    sys.exit(3)


@task
def interrupt() -> None:
    """KeyboardInterrupt."""
    raise KeyboardInterrupt


@task
def die(code: int = 1, after: float = 0.0) -> None:
    """End the process at once."""
    time.sleep(after)
    os._exit(code)


@task
async def adie(code: int = 1, after: float = 0.0) -> None:
    """End the process at once, from the loop."""
    await asyncio.sleep(after)
    os._exit(code)


@task
def die_once(mark: str) -> str:
    """End the process in the first attempt only."""
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(1)
    return "alive"


@task
def segfault() -> None:
    """Read address 0."""
    ctypes.string_at(0)


@task
async def asegfault() -> None:
    """Read address 0, from the loop."""
    ctypes.string_at(0)


@task
def eat(megabytes: int = 4096, step: int = 8, pause: float = 0.005) -> int:
    """Take memory, bit by bit, and touch it."""
    kept = []
    for _ in range(megabytes // step):
        kept.append(b"x" * (step * 1024 * 1024))
        time.sleep(pause)
    return sum(map(len, kept))


@task
def spin() -> None:
    """Never end, in Python."""
    while True:
        pass


@task
async def aspin() -> None:
    """Never end, and never give the loop back."""
    while True:
        pass


@task
def hold_gil(seconds: int = 60) -> None:
    """Sleep in C without giving the GIL back: nothing in this process moves meanwhile."""
    ctypes.PyDLL(None).sleep(seconds)


@task
def ignore_cancel(seconds: float = 60.0) -> str:
    """Go on whatever anybody raises in it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)
    return "ignored"


@task
async def aignore_cancel(seconds: float = 60.0) -> str:
    """Go on however often it is cancelled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            await asyncio.sleep(0.01)
    return "ignored"


@task
def heed_cancel(seconds: float = 60.0) -> str:
    """Look whether it shall stop, and come back with a result when it shall."""
    current().progress(0.0, "begun")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if current().cancel_requested():
            return "stopped by itself"
        time.sleep(0.01)
    return "never asked"


@task(timeout=10, soft_timeout=0.3)
def soft() -> str:
    """Tidy up at the soft limit."""
    try:
        time.sleep(5)
    except SoftTimeout:
        return "tidied"
    return "not told"


@task(timeout=10, soft_timeout=0.3)
async def asoft() -> str:
    """Tidy up at the soft limit, on the loop."""
    try:
        await asyncio.sleep(5)
    except SoftTimeout:
        await asyncio.sleep(0.01)
        return "tidied"
    return "not told"


@task(timeout=10, soft_timeout=0.3, initial=0.0)
async def asoft_out() -> None:
    """Let the soft limit's error out."""
    await asyncio.sleep(5)


class Rude(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@task(initial=0.0)
def rude() -> None:
    """Raise it."""
    raise Rude


@task(initial=0.0)
def odd_text(megabytes: int = 0) -> None:
    """Raise with NUL, a lone surrogate and, when asked, much text."""
    raise ValueError("nul \0 surrogate \ud800 end" + "x" * (megabytes * 1024 * 1024))


@task
def odd_result(which: str = "object") -> Any:
    """Return what no JSON can hold, or what no row should."""
    return {
        "object": object(),
        "nan": float("nan"),
        "nul": {"deep": ["a\0b"]},
        "surrogate": "\ud800",
        "huge": "x" * (50 * 1024 * 1024) if which == "huge" else "",
        "set": {1, 2},
    }[which]


@task
def loud(lines: int = 3) -> None:
    """Print and log."""
    for number in range(lines):
        print(f"line {number}")
    logging.getLogger("loud").info("through logging")
    print("to stderr\0", file=sys.stderr)


@task
async def aloud(word: str = "x", lines: int = 3) -> None:
    """Print, with others beside it."""
    for number in range(lines):
        print(f"{word} {number}")
        await asyncio.sleep(0)


@task
def steps(count: int = 5, pause: float = 0.1) -> str:
    """Report progress."""
    for _ in current().track(range(count)):
        time.sleep(pause)
    current().progress(1.0, "there")
    time.sleep(pause)
    return "done"


@task
def start_process(mark: str) -> None:
    """Start a program that outlives a moment, then end this process."""
    child = subprocess.Popen(["sleep", "60"])
    Path(mark).write_text(str(child.pid))
    os._exit(1)


@task
def keep_process(mark: str) -> None:
    """Start a program and wait for it."""
    with subprocess.Popen(["sleep", "600"]) as child:
        Path(mark).write_text(str(child.pid))


@task
def leap(megabytes: int) -> int:
    """Ask for all the memory at once."""
    return len(bytes(megabytes * 1024 * 1024))


@task
async def aleap(megabytes: int) -> int:
    """Ask for all the memory at once, on the loop."""
    await asyncio.sleep(0.2)
    return len(bytes(megabytes * 1024 * 1024))


@task
def living() -> int:
    """Say how many attempts this process holds; from the first time on without the collector of cycles."""
    gc.disable()
    return sum(isinstance(one, Context) for one in gc.get_objects())


@task
def facts() -> dict[str, Any]:
    """Say what this process can see of its surroundings."""
    return {
        "environment": sorted(os.environ),
        "session": os.getsid(0) == os.getpid(),
        "parent": os.getppid(),
        "random": random.random(),
        "json": json.dumps(sys.path),
    }


def _mark(path: str | None, word: str) -> None:
    if path is not None:
        context = current()
        with Path(path).open("a") as file:
            file.write(f"{word} {context.task_id} {context.attempt} {os.getpid()}\n")


@task
async def run_program() -> str:
    """Start a program from the loop, as async code does."""
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()


@task
def run_loop() -> str:
    """Start a loop of its own, as sync code does."""
    return asyncio.run(_hello())


async def _hello() -> str:
    await asyncio.sleep(0)
    return "hello"
