"""Images FROM the worker's: the example, and one whose packages are bad company."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import queue_manager as queue
from core.domain.task import Submission
from tests.images import boxes
from tests.system.proxy import Proxy
from tests.working import House, house

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN = boxes.ROOT / "examples/image"
# Another msgspec than the supervisor's, and packages with the names of ours.
HOSTILE = {
    "Dockerfile": """
        FROM {worker}
        USER 0
        COPY . /src
        RUN pip install --no-cache-dir msgspec==0.20.0 /src && rm -r /src
        USER 65532:65532
        ENV TASKFLOW_WORKER_MODULES=mine
    """,
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "mine"
        version = "1"
        [tool.hatch.build.targets.wheel]
        packages = ["core", "services", "mine.py"]
    """,
    "core/__init__.py": "answer = 42",
    "core/config.py": "raise RuntimeError('the supervisor imported the package of a user')",
    "services/__init__.py": "raise RuntimeError('the supervisor imported the package of a user')",
    "mine.py": """
        import core, msgspec
        from taskflow_queue import task
        @task(queue="default")
        def look() -> list:
            return [core.answer, msgspec.__version__]
    """,
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(dedent(content).lstrip().replace("{worker}", boxes.names()["worker"]))
    return folder


async def result(home: House, url: str, image: str, kind: str, queue_name: str, **arguments: str) -> Any:
    """Let a worker of an image run one task, and return its result."""
    env = {
        "DATABASE_URL": url,
        "TASKFLOW_REDIS": "off",
        "TASKFLOW_WORKER_CHILDREN": "1",
        "HEARTBEAT_INTERVAL_SECONDS": "0.5",
    }
    task = Submission(id=uuid4(), owner_id=home._owner, type=kind, queue=queue_name, payload=json.dumps(arguments))
    async with home.database.begin() as tx:
        await queue.ensure_queues(tx, [queue_name])
        await queue.submit(tx, [task])
    with boxes.started(image, env):
        (row,) = await home.ended([task.id], within=60)
    assert row["status"] == "COMPLETED", row
    return json.loads(row["result"])


@pytest.fixture
def port_url(database_url: str) -> Iterator[str]:
    """The database by a port: the folder of its socket is not open to the user of an image."""
    with Proxy(database_url) as proxy:
        yield proxy.url


async def test_the_example_builds_and_its_task_runs(database_url: str, port_url: str) -> None:
    image = boxes.build("localhost/notes-worker:test", OWN)
    async with house(database_url) as home:
        said = await result(home, port_url, image, "notes.tasks:render", "notes", text="# Hello")
    assert said == "<h1>Hello</h1>"


async def test_what_a_user_installs_cannot_break_the_supervisor(
    database_url: str, port_url: str, tmp_path: Path
) -> None:
    image = boxes.build("localhost/hostile-worker:test", write(tmp_path, HOSTILE))
    async with house(database_url) as home:
        said = await result(home, port_url, image, "mine:look", "default")
    assert said == [42, "0.20.0"]
