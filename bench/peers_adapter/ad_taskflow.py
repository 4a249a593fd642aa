"""TaskFlow as a contestant of the peers' bench: `python ad_taskflow.py PROCS` is its worker command, `map N` submits N.

Everything that a user has by default is on. A scheduler and PROCS workers run, all on the bench's PostgreSQL and Redis.
Submitting is REST by the SDK: `open` starts an API server for the submitting process, `close` stops it.
"""

import asyncio
import atexit
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

from taskflow_queue import Client, task

NOTES = pathlib.Path(os.environ["BENCH_LOG"] + ".taskflow")  # what the processes of one run must agree on
BOUND_SECONDS = 30.0


class Way:
    """How this process submits: its server and its client."""

    api: subprocess.Popen[bytes] | None = None
    client: Client | None = None


def settings() -> dict[str, str]:
    """The environment of every process of ours: the bench's stores, and nothing else said."""
    redis = urlsplit(os.environ["BENCH_REDIS"])
    host, port = redis.hostname or "127.0.0.1", str(redis.port or 6379)
    return {
        **os.environ,
        "DATABASE_URL": os.environ["BENCH_PG"],
        "REDIS_HOST_HIGH": host,
        "REDIS_PORT_HIGH": port,
        "REDIS_HOST_LOW": host,
        "REDIS_PORT_LOW": port,
        "SECRET_KEY": "only-for-a-benchmark-on-loopback-0123456789",
        "TASKFLOW_ENV": "development",
        "TASKFLOW_API_HOST": "127.0.0.1",
        "TASKFLOW_METRICS_PORT": "0",
        "TASKFLOW_LOG_LEVEL": "warning",
        "TASKFLOW_WORKER_MODULES": "ad_taskflow",
        "TASKFLOW_WORKER_PASS_ENV": "BENCH_LOG,BENCH_PG,BENCH_REDIS",
        "RATE_LIMIT_SUBMIT_PER_MINUTE": "100000000",
    }


@task(queue="default", name="ad_taskflow:noop")
async def noop(t0: int) -> None:
    """Write down that it runs."""
    from mark import mark

    mark(t0)


@task(queue="default", name="ad_taskflow:sync_noop")
def sync_noop(t0: int) -> None:
    """Write down that it runs, as a plain function."""
    from mark import mark

    mark(t0)


HANDLER = sync_noop if os.environ.get("TASKFLOW_BENCH_SYNC") else noop


def prepare() -> None:
    """Make the schema, an account and its key."""
    os.environ.update(settings())
    from core import config, database, local, migrate

    config.reload()
    migrate.upgrade(os.environ["DATABASE_URL"])
    with database.SessionLocal.begin() as session:
        key = local.key_of(session, local.owner(session, "bench"), None)
    NOTES.write_text(json.dumps({"key": key}))


def start(role: str, variable: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a service and wait until it is ready; return it and its address, whose port `variable` sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", f"services.{role}.main"]
    process = subprocess.Popen(command, env={**settings(), variable: str(port)})
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + BOUND_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return process, url
        except OSError:
            if time.monotonic() > end or process.poll() is not None:
                process.kill()
                raise
            time.sleep(0.02)


def open() -> None:  # noqa: A001 - the bench's name for it
    """Start an API server and connect."""
    if "prepare" in sys.argv:  # the bench opens before it prepares
        return
    Way.api, url = start("api", "TASKFLOW_API_PORT")
    atexit.register(close)
    Way.client = Client(url=url, api_key=json.loads(NOTES.read_text())["key"])


async def submit_one(t0: int) -> None:
    """Submit one task."""
    await HANDLER.options(client=Way.client).submit_async(t0)


async def submit_many(times: list[int]) -> None:
    """Submit many in one call."""
    await HANDLER.options(client=Way.client).map_async(times)


def close() -> None:
    """Stop the API server."""
    if Way.api is not None:
        Way.api.terminate()
        Way.api.wait(BOUND_SECONDS)
        Way.api = None


async def one_map(tasks: int) -> float:
    """Submit so many in one call; tasks a second. A call before it pays for the connection, as with the bench."""
    open()
    await submit_one(time.time_ns())
    began = time.perf_counter()
    await submit_many([time.time_ns()] * tasks)
    return tasks / (time.perf_counter() - began)


def main() -> None:
    """Run a scheduler and workers until told to stop. The scheduler is there when workers start, as in any cluster."""
    running = [start("scheduler", "TASKFLOW_METRICS_PORT")[0]]
    workers = [[sys.executable, "-m", "services.worker.main"]] * int(sys.argv[1])
    running += [subprocess.Popen(command, env=settings()) for command in workers]
    signal.signal(signal.SIGTERM, lambda *_: None)  # the bench tells the whole group, so they have heard it as well
    for process in running:
        process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "map":
        print(asyncio.run(one_map(int(sys.argv[2]))))
    else:
        main()
