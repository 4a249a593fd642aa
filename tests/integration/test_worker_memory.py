"""Out of memory is said as such, to the task whose fault it was, and costs its neighbours nothing."""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kid import Kid
from tests.signals import until
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CGROUPS = Path("/sys/fs/cgroup/memory")
MB = 1024 * 1024
LIMIT_MB = 640


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


async def ends_alone(home: House, handler: str, **arguments: float) -> None:
    """Submit one that needs too much among neighbours, and see that it alone is charged."""
    neighbours = await home.submit("asleep", 20, seconds=1.0)
    [bad] = await home.submit(handler, **arguments)
    [row] = await home.ended([bad], within=60)
    assert (row["status"], row["crash_count"], row["retry_count"]) == ("QUARANTINED", 2, 0)
    assert json.loads(row["error"])["type"] == "OutOfMemory"
    assert ("RETRIED", "out_of_memory") in await home.events(bad)
    rows = await home.ended(neighbours)
    assert {(row["status"], row["retry_count"], row["crash_count"]) for row in rows} == {("COMPLETED", 0, 0)}


@pytest.mark.parametrize("handler", ["leap", "aleap"])
async def test_an_allocation_beyond_the_wall_is_out_of_memory(home: House, database_url: str, handler: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_MEMORY_MB="150") as worker:
        worker.ready()
        await ends_alone(home, handler, megabytes=4000)


async def test_without_a_limit_a_memory_error_is_an_error_as_any(home: House, database_url: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_MEMORY_MB="0"):
        [row] = await home.ended(await home.submit("leap", megabytes=1 << 40, _max_attempts=1))
    assert (row["status"], json.loads(row["error"])["type"]) == ("FAILED", "MemoryError")


def test_a_child_says_that_it_ran_into_its_wall_and_goes_first() -> None:
    with Kid(wall=300) as kid:
        kid.ready()
        done = kid.done(kid.run("leap", megabytes=200))
        assert done.kind == "returned"
        done = kid.done(kid.run("leap", megabytes=400))
        assert (done.kind, done.error_type) == ("out_of_memory", "MemoryError")
        own = int(Path("/proc/self/oom_score_adj").read_text())
        assert int(Path(f"/proc/{kid.pid}/oom_score_adj").read_text()) == min(own + 100, 1000)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of our own, with a limit, as a container has one."""
    place = CGROUPS / f"tf-{secrets.token_hex(4)}"
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(LIMIT_MB * MB))
    except OSError as refused:
        with contextlib.suppress(OSError):
            place.rmdir()
        pytest.skip(f"no memory cgroup (v1) can be made here: {refused.strerror}")
    yield place

    def removed() -> bool:
        with contextlib.suppress(OSError):
            place.rmdir()
        return not place.exists()

    until(removed)


@pytest.mark.parametrize(("handler", "arguments"), [("eat", {"step": 32, "pause": 0.05}), ("leap", {}), ("aleap", {})])
async def test_in_a_container_a_child_ends_before_the_kernel_ends_anybody(
    home: House, database_url: str, cgroup: Path, handler: str, arguments: dict[str, float]
) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}) as worker:
        (cgroup / "cgroup.procs").write_text(str(worker.process.pid))
        worker.ready()
        assert str(worker.process.pid) in (cgroup / "cgroup.procs").read_text().split()
        [said] = worker.said("what a child may use")
        assert (said["set"], said["megabytes"]) == (False, int(LIMIT_MB * 0.95 - 64) // 2)
        await ends_alone(home, handler, megabytes=LIMIT_MB * 2, **arguments)
        assert "oom_kill 0" in (cgroup / "memory.oom_control").read_text().splitlines()
        assert worker.process.poll() is None
