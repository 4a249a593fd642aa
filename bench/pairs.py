"""`make bench-pairs BASE=<commit>`: this working tree beside an earlier commit, in interleaved pairs.

Each measurement has a fresh database and flushed Redis, on servers that both sides share. The order is baseline,
candidate, candidate, baseline, and so on. A ratio above 1 is a gain of the candidate, whatever the item's unit.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import redis

from bench.page import machine
from bench.ratios import interval
from bench.side import Checkout, Side, check_out, running
from bench.submits import BATCH, BODY, CONNECTIONS, Connection, rate, request
from bench.worker import pss_mib
from core import embedded
from core.embedded import Servers

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".taskflow" / "pairs"
TASKS, WORKERS = 50_000, 2
WARM_UP, SINGLES, PACE_SECONDS = 50, 300, 0.02
BATCHES = 60
PATIENCE_SECONDS = 300.0
IDLE_SECONDS = 3.0
DONE = """
select count(*), extract(epoch from max(finished_at) - min(started_at))::float8 from tasks where status = 'COMPLETED'
"""
LOSS, GAIN = 0.95, 1.0


class Stores:
    """PostgreSQL and Redis of one run: a database for each measurement, copied from the side's own template."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._count = 0

    def _admin(self, *statements: str) -> None:
        with closing(psycopg2.connect(self._servers.database_url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

    def _named(self, name: str) -> dict[str, str]:
        url = urlsplit(self._servers.database_url)
        return self._servers.env() | {"DATABASE_URL": urlunsplit(url._replace(path=f"/{name}"))}

    def template(self, checkout: Checkout, folder: Path) -> None:
        """A database at the checkout's schema."""
        self._admin(f"create database {checkout.name}")
        with Side(checkout, folder / checkout.name, self._named(checkout.name)) as side:
            side.migrate()

    @contextmanager
    def fresh(self, checkout: Checkout) -> Iterator[dict[str, str]]:
        """The variables of a new database at the checkout's schema, and of two empty Redis."""
        self._count += 1
        name = f"pairs_{self._count}"
        self._admin(f"create database {name} template {checkout.name}")
        for address in (self._servers.redis_high, self._servers.redis_low):
            if address is not None:
                with redis.Redis(*address) as client:
                    client.flushall()
        self._admin("checkpoint")
        try:
            yield self._named(name)
        finally:
            self._admin(f"drop database {name} with (force)")


def rows(side: Side, statement: str) -> list[Any]:
    """What PostgreSQL answers to a statement on the side's database."""
    with closing(psycopg2.connect(side.stores["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def until(done: Callable[[], bool], what: str, pause: float) -> None:
    """Look again and again until `done`. Raises TimeoutError."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} took more than {PATIENCE_SECONDS:.0f} s")
        time.sleep(pause)


def drain(side: Side, kind: str) -> float:
    """Tasks a second from the first claim to the last committed ending; queued before the workers start."""
    task = {"type": kind, "queue": "bench", "payload": {"args": [], "kwargs": {}}}
    for _ in range(TASKS // BATCH):
        side.ask("/v1/tasks:batch", {"tasks": [task] * BATCH})
    rows(side, "vacuum analyze tasks")
    rows(side, "checkpoint")
    workers = [side.start("worker") for _ in range(WORKERS)]
    seconds: list[float] = []

    def done() -> bool:
        count, taken = rows(side, DONE)[0]
        seconds[:] = [taken or 0.0]
        return bool(count >= TASKS)

    until(done, f"a drain of {TASKS:,}", 0.3)
    side.stop(*workers)
    return TASKS / seconds[0]


def submit(side: Side) -> float:
    """Answered requests a second, one task each, over 16 connections."""
    return asyncio.run(rate(side.port, CONNECTIONS, lambda: request("/v1/tasks", side.key, BODY)))


def batch(side: Side) -> float:
    """Tasks a second by requests of 500 on two connections."""
    body = b'{"tasks":[' + b",".join([BODY] * BATCH) + b"]}"
    return BATCH * asyncio.run(rate(side.port, 2, lambda: request("/v1/tasks:batch", side.key, body), BATCHES))


def idle(side: Side) -> float:
    """Milliseconds from before a submit over REST to the handler's first line, the median; one task every 20 ms."""
    worker = side.start("worker")
    body = b'{"type":"bench:stamp","queue":"bench","payload":{"args":[],"kwargs":{}}}'
    sent: dict[str, int] = {}

    async def go() -> None:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", side.port))
        for _ in range(WARM_UP + SINGLES):
            began = time.time_ns()
            answer = json.loads(await connection.body(request("/v1/tasks", side.key, body)))
            sent[answer["id"]] = began
            await asyncio.sleep(max(PACE_SECONDS - (time.time_ns() - began) / 1e9, 0))

    until(lambda: bool(rows(side, "select id from workers where state = 'alive'")), "the start of a worker", 0.05)
    asyncio.run(go())
    until(lambda: rows(side, DONE)[0][0] >= len(sent), "the idle tasks", 0.1)
    begun = dict(rows(side, "select id::text, result::text::bigint from tasks"))
    side.stop(worker)
    return median((begun[task] - began) / 1e6 for task, began in list(sent.items())[WARM_UP:])


def pss(side: Side) -> float:
    """MiB of an idle worker with its children."""
    worker = side.start("worker")
    until(lambda: bool(rows(side, "select id from workers where state = 'alive'")), "the start of a worker", 0.05)
    time.sleep(IDLE_SECONDS)
    held = pss_mib(worker.pid)
    side.stop(worker)
    return held


class Item(NamedTuple):
    """What is measured; `less` says that a smaller figure is the better one."""

    unit: str
    measure: Callable[[Side], float]
    less: bool = False


ITEMS = {
    "drain": Item("tasks/s", lambda side: drain(side, "bench:noop")),
    "submit": Item("requests/s", submit),
    "idle": Item("ms p50", idle, less=True),
    "drain-sync": Item("tasks/s", lambda side: drain(side, "bench:sync_noop")),
    "batch": Item("tasks/s", batch),
    "pss": Item("MiB", pss, less=True),
}
USUAL = ("drain", "submit", "idle")


def verdict(low: float, high: float, pairs: int) -> str:
    """What the interval says; a single pair has none."""
    if pairs < 2:
        return "one pair shows nothing"
    return "loss" if high < LOSS else "gain" if low > GAIN else "no difference shown"


def compare(stores: Stores, sides: tuple[Checkout, Checkout], names: list[str], pairs: int, folder: Path) -> list[str]:
    """The lines of the table."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    number = 0
    for turn in range(pairs):
        for name in names:
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                number += 1
                place = folder / f"{number:03}"
                with stores.fresh(sides[which]) as variables, running(sides[which], place, variables) as side:
                    found[name][which].append(ITEMS[name].measure(side))
                print(f"pair {turn + 1} {name} {sides[which].name}: {found[name][which][-1]:,.2f}", flush=True)
    lines = ["| item | unit | baseline | candidate | ratio (95 % interval), above 1 is a gain | |", "|---" * 6 + "|"]
    for name, (base, mine) in found.items():
        item = ITEMS[name]
        low, mean, high = interval([b / m if item.less else m / b for b, m in zip(base, mine, strict=True)])
        lines.append(
            f"| {name} | {item.unit} | {median(base):,.1f} | {median(mine):,.1f} |"
            f" {mean:.2f} ({low:.2f} to {high:.2f}) | {verdict(low, high, len(base))} |"
        )
    return lines


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="make bench-pairs", description=__doc__)
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("--items", default=",".join(USUAL), help=f"of {', '.join(ITEMS)}")
    parser.add_argument("--pairs", type=int, default=7)
    asked = parser.parse_args()
    names = [name for name in asked.items.split(",") if name] or list(USUAL)
    if unknown := set(names) - set(ITEMS):
        parser.error(f"unknown items: {', '.join(sorted(unknown))}; choose from {', '.join(ITEMS)}")
    try:
        base = check_out(asked.base, HOME, ROOT)
    except subprocess.CalledProcessError as failed:
        parser.error(f"commit {asked.base} cannot be set up: {failed.stderr or failed}")
    sides = base, Checkout(name="candidate", commit="working tree", folder=ROOT)
    with tempfile.TemporaryDirectory(prefix="taskflow-pairs-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user
        with embedded.running(folder / "stores", postgres=True, redis=True, delete=True) as servers:
            stores = Stores(servers)
            for side in sides:
                stores.template(side, folder)
            lines = compare(stores, sides, names, asked.pairs, folder)
    print(f"\n{machine()}, beside `{base.commit}`, {asked.pairs} pairs\n", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
