"""A worker on real PostgreSQL without Redis: everything that handlers, signals and lost answers may do to it."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from core import queue_manager as queue
from core.domain.ordering import PriorityType
from core.pool import Database
from tests.kid import alive
from tests.lookout import happens
from tests.signals import until
from tests.worker_secret import claim_behind_its_back
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from uuid import UUID


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


@pytest.fixture
def worker(database_url: str) -> Iterator[WorkerProcess]:
    with WorkerProcess({"DATABASE_URL": database_url}) as process:
        yield process


def error(row: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(row["error"])
    return told


async def test_tasks_of_both_lanes_complete(home: House, worker: WorkerProcess) -> None:
    ids = await home.submit("echo", 20, value={"a": 1}) + await home.submit("aecho", 200, value=[1, 2])
    rows = await home.ended(ids)
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert {row["result"] for row in rows} == {'{"a":1}', "[1,2]"}
    assert {row["attempt"] for row in rows} == {1}
    assert await home.events(ids[0]) == [("CREATED", None), ("STARTED", None), ("COMPLETED", "returned")]


async def test_urgent_tasks_start_first(home: House, database_url: str, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    low = await home.submit("sleep", 3, seconds=0.01, mark=mark, _priority=PriorityType.LOW)
    high = await home.submit("sleep", 3, seconds=0.01, mark=mark, _priority=PriorityType.HIGH)
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_CHILDREN="1"):
        await home.ended(low + high)
    started = [line.split()[1] for line in lines(tmp_path / "mark") if line.startswith("start")]
    assert set(started[:3]) == {str(task) for task in high}


BAD = {
    # handler -> arguments, how it ends, charged failures, charged crashes, what the error is called
    "fail": ({}, "FAILED", 3, 0, "ValueError"),
    "afail": ({}, "FAILED", 3, 0, "ValueError"),
    "leave": ({}, "FAILED", 3, 0, "SystemExit"),
    "odd_result": ({}, "FAILED", 1, 0, "ResultRejected"),
    "odd_text": ({}, "FAILED", 3, 0, "ValueError"),
    "give_up": ({}, "FAILED", 1, 0, "KeyError"),
    "die": ({"code": 7}, "QUARANTINED", 0, 2, "Crashed"),
    "adie": ({"after": 0.2}, "QUARANTINED", 0, 2, "Crashed"),
    "segfault": ({}, "QUARANTINED", 0, 2, "Crashed"),
    "acancel_all": ({"seconds": 0.2}, "FAILED", 3, 0, "asyncio.exceptions.CancelledError"),
}


@pytest.mark.parametrize("handler", BAD)
async def test_a_bad_handler_ends_as_promised_and_its_neighbours_complete(
    home: House, worker: WorkerProcess, handler: str
) -> None:
    arguments, status, failures, crashes, name = BAD[handler]
    bad = await home.submit(handler, **arguments)  # type: ignore[arg-type]
    neighbours = await home.submit("asleep", 50, seconds=0.5)
    row, *_ = await home.ended(bad, within=60)
    assert (row["status"], row["retry_count"], row["crash_count"]) == (status, failures, crashes)
    assert error(row)["type"] == name
    for neighbour in await home.ended(neighbours):
        assert (neighbour["status"], neighbour["retry_count"], neighbour["crash_count"]) == ("COMPLETED", 0, 0)


@pytest.mark.parametrize(
    ("handler", "arguments"),
    [
        ("spin", {}),
        ("aspin", {}),
        ("hold_gil", {}),
        ("ignore_cancel", {}),
        ("aignore_cancel", {}),
        ("sleep", {"seconds": 60}),
    ],
)
async def test_a_hard_limit_ends_whatever_runs(
    home: House, worker: WorkerProcess, handler: str, arguments: dict[str, Any]
) -> None:
    bad = await home.submit(handler, **arguments, _timeout_seconds=1.0, _max_attempts=1)
    neighbours = await home.submit("asleep", 50, seconds=1.5)
    row, *_ = await home.ended(bad, within=30)
    assert (row["status"], row["retry_count"], row["crash_count"]) == ("FAILED", 1, 0)
    assert row["finished_at"] - row["started_at"] < timedelta(seconds=10)
    assert "time limit" in error(row)["message"]
    for neighbour in await home.ended(neighbours):
        assert (neighbour["status"], neighbour["retry_count"], neighbour["crash_count"]) == ("COMPLETED", 0, 0)
    assert await home.ended(await home.submit("noop", 4))


async def test_a_child_beyond_its_memory_is_killed_and_it_is_named_so(home: House, database_url: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_MEMORY_MB="150"):
        row, *_ = await home.ended(await home.submit("eat", megabytes=2000), within=60)
        assert (row["status"], row["crash_count"], row["retry_count"]) == ("QUARANTINED", 2, 0)
        assert error(row)["type"] == "OutOfMemory"
        assert ("RETRIED", "out_of_memory") in await home.events(row["id"])


async def test_retry_later_charges_nothing(home: House, worker: WorkerProcess) -> None:
    row, *_ = await home.ended(await home.submit("later", seconds=0.1, _max_attempts=1))
    assert (row["status"], row["retry_count"], row["attempt"]) == ("COMPLETED", 0, 2)


async def test_a_failure_is_tried_again_and_counted(home: House, worker: WorkerProcess) -> None:
    row, *_ = await home.ended(await home.submit("fail_first", times=2))
    assert (row["status"], row["retry_count"], row["result"]) == ("COMPLETED", 2, "3")


async def test_progress_and_logs_arrive(home: House, worker: WorkerProcess) -> None:
    [task] = await home.submit("steps", count=40, pause=0.05)

    async def told() -> bool:
        row = await home.row(task)
        return row["progress"] is not None and 0 < json.loads(row["progress"])["fraction"] <= 1

    await happens(told)
    [loud] = await home.submit("loud")
    await home.ended([loud])
    async with home.database.connection() as tx:
        text = await tx.fetchval("select string_agg(text, '' order by id) from task_logs where task_id = $1", loud)
    assert text.startswith("line 0\nline 1\nline 2\nINFO loud: through logging\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "within"),
    [("asleep", 3), ("heed_cancel", 3), ("sleep", 9), ("ignore_cancel", 15), ("aignore_cancel", 15)],
)
async def test_a_cancel_stops_what_runs(home: House, worker: WorkerProcess, handler: str, within: float) -> None:
    [task] = await home.submit(handler, seconds=60)
    await home.becomes(task, "IN_PROGRESS")
    async with home.database.begin() as tx:
        await queue.cancel(tx, [task], owner_id=None, force=False, by="test")
    ended = "COMPLETED" if handler == "heed_cancel" else "CANCELLED"
    await home.becomes(task, ended, within=within)
    assert await home.ended(await home.submit("noop", 4) + await home.submit("anoop", 200))


async def test_a_forced_cancel_frees_the_slot_though_nobody_tells_the_worker(
    home: House, worker: WorkerProcess
) -> None:
    """The row is over at once; the inventory of each third beat finds the handler."""
    tasks = await home.submit("sleep", 2, seconds=60)
    for task in tasks:
        await home.becomes(task, "IN_PROGRESS")
    async with home.database.begin() as tx:
        await queue.cancel(tx, tasks, owner_id=None, force=True, by="test")
    await home.ended(await home.submit("noop", 2), within=10)
    assert await home.statuses(tasks) == {"CANCELLED"}


async def test_a_task_that_the_worker_forgot_is_given_back(home: House, worker: WorkerProcess) -> None:
    """As if the answer to its claim had been lost, and reading it back as well."""
    worker.ready()
    [task] = await home.submit("noop", _queue="elsewhere")
    async with home.database.connection() as tx:
        me = await tx.fetchval("select id from workers where state = 'alive'")
    async with home.database.begin() as tx:
        assert await claim_behind_its_back(tx, [task], me, ["tests.handlers:noop"])
    row = await home.becomes(task, "QUEUED", within=10)
    assert (row["attempt"], row["retry_count"], row["crash_count"]) == (1, 0, 0)
    assert ("RELEASED", "forgotten") in await home.events(task)


async def test_several_in_a_dying_child_are_suspects_and_only_the_culprit_is_charged(
    home: House, worker: WorkerProcess, tmp_path: Path
) -> None:
    happened = tmp_path / "happened"
    good = await home.submit("abide", 120, until=str(happened))  # more than one child holds: none of the two is empty
    for task in good:
        await home.becomes(task, "IN_PROGRESS")
    bad = await home.submit("adie", 1, after=0.3)

    async def died() -> bool:
        return len(await home.events(bad[0])) > 2  # CREATED, STARTED, and then

    await happens(died)
    happened.touch()
    row, *_ = await home.ended(bad, within=60)
    assert (row["status"], row["crash_count"]) == ("QUARANTINED", 2)
    rows = await home.ended(good)
    assert {(row["status"], row["retry_count"], row["crash_count"]) for row in rows} == {("COMPLETED", 0, 0)}
    assert any(row["attempt"] > 1 for row in rows)


async def test_sigterm_lets_running_tasks_end(home: House, worker: WorkerProcess, tmp_path: Path) -> None:
    over = tmp_path / "over"
    running = await home.submit("stay", 2, until=str(over))
    for task in running:
        await home.becomes(task, "IN_PROGRESS")
    waiting = await home.submit("noop", 4)
    worker.signal(signal.SIGTERM)
    until(lambda: worker.said("draining"))
    over.touch()
    assert worker.process.wait(timeout=15) == 0
    assert await home.statuses(running) == {"COMPLETED"}
    assert await home.statuses(waiting) == {"QUEUED"}
    async with home.database.connection() as tx:
        assert await tx.fetchval("select state from workers") == "dead"


@pytest.mark.parametrize("handler", ["sleep", "asleep", "ignore_cancel"])
async def test_what_does_not_end_in_time_is_released_uncharged(home: House, database_url: str, handler: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_DRAIN_SECONDS="0.2") as worker:
        [task] = await home.submit(handler, seconds=60)
        await home.becomes(task, "IN_PROGRESS")
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(timeout=15) == 0
    row = await home.row(task)
    assert (row["status"], row["attempt"], row["retry_count"], row["crash_count"]) == ("QUEUED", 1, 0, 0)
    assert ("RELEASED", "released") in await home.events(task)


async def test_a_second_sigterm_releases_now(home: House, worker: WorkerProcess) -> None:
    [task] = await home.submit("ignore_cancel", seconds=60)
    await home.becomes(task, "IN_PROGRESS")
    worker.signal(signal.SIGTERM)
    until(lambda: worker.said("draining"))
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(timeout=10) == 0
    assert (await home.row(task))["status"] == "QUEUED"


async def test_a_killed_supervisor_leaves_no_child(home: House, worker: WorkerProcess) -> None:
    await home.becomes((await home.submit("hold_gil"))[0], "IN_PROGRESS")
    children = worker.children()
    assert len(children) >= 2
    worker.process.kill()
    worker.process.wait()
    until(lambda: not any(alive(pid) for pid in children))


async def test_a_killed_supervisor_leaves_nothing_of_what_its_tasks_had_started(
    home: House, worker: WorkerProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    await home.submit("keep_process", mark=str(mark))
    pid = until(lambda: mark.exists() and int(mark.read_text() or 0), within=20)
    worker.process.kill()
    worker.process.wait()
    until(lambda: not alive(pid))


async def test_a_stopped_worker_is_fenced_and_goes_on_under_a_new_id(
    home: House, worker: WorkerProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    over = tmp_path / "over"
    short = await home.submit("abide", until=str(over), mark=str(tmp_path / "short"))
    long = await home.submit("asleep", seconds=60, mark=str(mark))
    for task in short + long:
        await home.becomes(task, "IN_PROGRESS")
    until(lambda: mark.exists() and (tmp_path / "short").exists())
    worker.signal(signal.SIGSTOP)

    async def dead() -> UUID | None:  # a last beat may be under way
        async with home.database.connection() as tx:
            row = await tx.fetchrow("select id, beat_seq from workers where state = 'alive'")
            return row["id"] if await queue.mark_dead(tx, row["id"], row["beat_seq"]) else None

    old = await happens(dead)
    async with home.database.connection() as tx:
        assert len(await queue.rescue(tx)) == 2
        await tx.execute("update tasks set status = 'PENDING', scheduled_at = now() + interval '1 hour'")
    over.touch()
    until(lambda: len(lines(tmp_path / "short")) == 2)  # its child has ended it, and nobody was there to be told
    worker.signal(signal.SIGCONT)

    async def fenced() -> bool:
        return ("FENCED", "returned") in await home.events(short[0])

    await happens(fenced)
    rows = await home.ended(await home.submit("noop", 4))
    async with home.database.connection() as tx:
        now = await tx.fetchval("select id from workers where state = 'alive'")
    assert now != old
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert await home.statuses(short + long) == {"PENDING"}
    assert "end" not in mark.read_text()


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


async def test_children_that_die_leave_no_process_behind(home: House, worker: WorkerProcess, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    await home.ended(await home.submit("start_process", mark=str(mark)), within=60)
    pid = int(mark.read_text())
    until(lambda: not alive(pid))


async def test_children_see_no_secret(home: House, database_url: str) -> None:
    with WorkerProcess(
        {"DATABASE_URL": database_url, "SECRET_KEY": "s" * 40, "MINE": "yes", "TASKFLOW_WORKER_PASS_ENV": "MINE"}
    ):
        row, *_ = await home.ended(await home.submit("facts"))
    facts = json.loads(row["result"])
    assert {"DATABASE_URL", "SECRET_KEY"}.isdisjoint(facts["environment"])
    assert "MINE" in facts["environment"]
    assert facts["session"] is True


def test_modules_that_cannot_be_imported_end_the_worker_with_their_traceback(database_url: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_MODULES="no_such_module") as worker:
        assert worker.process.wait(timeout=15) == 1
    assert "ModuleNotFoundError: No module named 'no_such_module'" in "\n".join(worker.lines)


def test_a_wrong_setting_is_one_line_and_exit_2(database_url: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_SLOTS="many") as worker:
        assert worker.process.wait(timeout=15) == 2
    assert [line for line in worker.lines if "TASKFLOW_WORKER_SLOTS" in line] == worker.lines


async def test_probes_answer(home: House, database_url: str, free_port: int, tmp_path: Path) -> None:
    import httpx2

    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_METRICS_PORT=str(free_port)) as worker:
        worker.ready()
        base = f"http://127.0.0.1:{free_port}"
        assert httpx2.get(f"{base}/readyz").status_code == 200
        await home.ended(await home.submit("noop"))
        assert 'taskflow_tasks_total{outcome="COMPLETED"' in httpx2.get(f"{base}/metrics").text
        over = tmp_path / "over"
        [running] = await home.submit("stay", until=str(over))
        await home.becomes(running, "IN_PROGRESS")
        worker.signal(signal.SIGTERM)
        until(lambda: worker.said("draining"))
        assert httpx2.get(f"{base}/readyz").status_code == 200  # not ready would be the first to be ended
        assert httpx2.get(f"{base}/healthz").status_code == 200
        over.touch()


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_a_task_that_took_two_workers_down_gets_a_whole_worker(home: House, worker: WorkerProcess) -> None:
    [poison] = await home.submit("noop", _queue="elsewhere")
    async with home.database.connection() as tx:
        await tx.execute("update tasks set worker_deaths = 2, queue = 'default' where id = $1", poison)
    others = await home.submit("asleep", 5, seconds=0.5)
    row, *_ = await home.ended([poison], within=25)
    assert row["status"] == "COMPLETED"
    assert {row["status"] for row in await home.ended(others)} == {"COMPLETED"}


async def test_outcomes_survive_a_restart_of_postgresql(own_servers: Any, tmp_path: Path) -> None:
    from core import embedded

    url = own_servers.database_url
    async with house(url) as home:
        with WorkerProcess({"DATABASE_URL": url}) as worker:
            over = tmp_path / "over"
            running = await home.submit("abide", 20, until=str(over))
            for task in running:
                await home.becomes(task, "IN_PROGRESS")
            embedded.restart_postgres(own_servers, mode="immediate")
            over.touch()
            rows = await home.ended(running, within=30)
            assert {(row["status"], row["attempt"], row["retry_count"]) for row in rows} == {("COMPLETED", 1, 0)}
            assert worker.process.poll() is None
            assert os.getpid()
            async with Database(url, name="again") as database, database.connection() as tx:
                assert await tx.fetchval("select count(*) from workers where state = 'alive'") == 1
