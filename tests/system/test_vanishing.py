"""A host vanishes without a word: its locks are free soon, its tasks are rescued, and every other task goes on."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from core import embedded, migrate
from tests.kid import ROOT
from tests.signals import until
from tests.system.conftest import FULL
from tests.system.standby import ask
from tests.system.test_standby import Load
from tests.system.vanishing import POSSIBLE, THERE, Host, listen_here
from tests.system.world import world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not FULL, reason="a minute of load: only at full size"),
    pytest.mark.skipif(not POSSIBLE, reason="it makes a network namespace, which takes root and iproute2"),
]

WITHIN = 25.0
CAP = 3
APART = {"TASKFLOW_REDIS": "off", "TASKFLOW_WORKER_CHILDREN": "1"}
QUEUES = """
insert into queues (name, max_per_key) values ('held', 1), ('async', %s)
on conflict (name) do update set max_per_key = excluded.max_per_key
"""
FROM_THERE = f"select count(*) from pg_stat_activity where client_addr = '{THERE}'"
FREE = "select count(*) from (select from tasks where queue = 'held' for update skip locked) as free"
# More than the buffers of both ends take, so that the server waits in the middle of the answer.
HOLD = "update tasks set updated_at = updated_at where queue = 'held' returning repeat('x', 1000000)"
HELD = 40
RESCUED = """
select extract(epoch from max(created_at) - to_timestamp(%s))::float8 from task_events
where event_type::text = 'RESCUED'
"""
# How many attempts of capped tasks ran at once, at most, as PostgreSQL says.
AT_ONCE = """
with moves as (
    select events.id, events.created_at, case when event_type::text = 'STARTED' then 1 else -1 end as step
    from task_events as events join tasks on tasks.id = events.task_id
    where tasks.concurrency_key = 'capped' and event_type::text in ('STARTED', 'COMPLETED', 'RESCUED', 'RELEASED')
)
select max(running) from (select sum(step) over (order by created_at, step) as running from moves) as running
"""
LONGEST_GAP = """
select max(gap) from (
    select extract(epoch from created_at - lag(created_at) over (order by created_at))::float8 as gap
    from task_events where event_type::text = 'COMPLETED' and created_at between to_timestamp(%s) and to_timestamp(%s)
) as gaps
"""


@contextmanager
def frozen(host: Host, url: str) -> Iterator[None]:
    """A client on that host which holds the rows of the queue `held`, and takes no answer."""
    with host.inside():
        client = subprocess.Popen(
            [sys.executable, "-m", "tests.system.frozen", url, HOLD],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'libs'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
    assert client.stdout is not None
    with client.stdout as said:
        try:
            assert said.readline().strip().isdigit()
            yield
        finally:
            client.kill()
            client.wait(10)


def test_a_host_that_vanishes_holds_nothing_for_long(run_folder: Path, tmp_path: Path) -> None:
    place = run_folder / f"own-{secrets.token_hex(4)}"
    with embedded.running(place, postgres=True, redis=True, delete=True) as own, Host() as host:
        migrate.upgrade(own.database_url)
        there = listen_here(own)
        with world(tmp_path, own, own.database_url, HEARTBEAT_INTERVAL_SECONDS="5") as made:
            made.api()
            made.schedulers(1)
            made.rows(QUEUES, CAP)
            with host.inside():
                lost = made.fleet.worker("tests.system.tasks", DATABASE_URL=there, **APART)
            made.fleet.ready(lost)
            history = made.history()
            long = made.submit_each("awork", [{"history": str(history), "seconds": 30}] * 10)
            work = [{"history": str(history), "seconds": 10}] * CAP + [{"history": str(history), "seconds": 1}] * 30
            capped = made.submit_each("awork", work, concurrency_key="capped")
            until(lambda: running_on(made, lost.pid) == len(long) + CAP, 30)
            made.workers(1)
            held = made.submit_each("nobody:nothing", [{}] * HELD, queue="held")
            with Load(made, history) as load:
                until(lambda: time.monotonic() - load.began > 3 and load.acknowledged, 60)
                with frozen(host, there):
                    until(lambda: ask(own.database_url, FREE)[0][0] == 0, 10)
                    host.vanish()
                    began, wall = time.monotonic(), time.time()
                    free = until(lambda: ask(own.database_url, FREE)[0][0] == HELD and time.monotonic() - began, 120)
                    gone = until(lambda: ask(own.database_url, FROM_THERE)[0][0] == 0 and time.monotonic() - began, 120)
                until(lambda: running_on(made, lost.pid) == 0, 120)
                until(lambda: time.monotonic() - began > WITHIN, 60)
            ids = [*load.acknowledged, *long, *capped]
            statuses = set(made.ended(ids, 240).values())
            rescued, gap, at_once = (
                made.one(RESCUED, wall),
                made.one(LONGEST_GAP, wall, wall + WITHIN),
                made.one(AT_ONCE),
            )
            print(
                f"vanished host: locks free after {free:.1f} s, sessions gone after {gone:.1f} s, last rescue after"
                f" {rescued:.1f} s, longest time without an ending {gap:.1f} s, {len(ids)} tasks, at most {at_once} of"
                f" {CAP} capped at once"
            )
            assert load.problems == []
            assert statuses == {"COMPLETED"}
            assert len(held) == HELD
            assert max(free, gone, rescued) <= WITHIN
            assert gap <= 5
            assert at_once <= CAP


def running_on(made: Any, pid: int) -> int:
    return int(
        made.one(
            "select count(*) from tasks join workers on workers.id = tasks.worker_id where workers.pid = %s"
            " and status::text = 'IN_PROGRESS'",
            pid,
        )
    )
