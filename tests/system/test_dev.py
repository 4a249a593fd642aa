"""`taskflow dev` in one terminal, the SDK and the commands in another: the first quarter of an hour of a new user."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COMMAND = str(Path(sys.executable).parent / "taskflow")
TASKS = """
from taskflow_queue import task, Client

@task(queue="text", max_attempts=5, timeout=60)
def count(path: str) -> dict:
    return {"version": 1, "bytes": len(open(path, "rb").read())}
"""
SNIPPET = """
from tasks import count
handle = count.submit("tasks.py")
print(handle.id, handle.result(timeout=30)["version"])
"""


def until(done: Callable[[], bool], within: float) -> bool:
    end = time.monotonic() + within
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


class Dev:
    """A running `taskflow dev`, and a second terminal in its folder."""

    def __init__(self, folder: Path, *, children: int = 1, under: Sequence[str] = (), **variables: str) -> None:
        """`under`: a command that becomes `taskflow dev`."""
        kept = {"PATH", "HOME", "LANG", "TMPDIR"}
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if name in kept} | variables
        self.out = folder / "out.txt"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*under, COMMAND, "dev", "--port", "0", "--children", str(children)],
                cwd=folder,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.out.read_text()

    def living(self) -> str:
        """Who of it still runs and what it does, for whoever wonders why it did not end."""
        with suppress(psutil.NoSuchProcess):
            mine = psutil.Process(self.process.pid)
            every = [mine, *mine.children(recursive=True)]
            return "\n".join(str(one.as_dict(["pid", "status", "cmdline"])) for one in every)
        return "somebody of it ended just now"

    def pid(self, name: str) -> int:
        found = re.search(rf"^  {name} +(\d+)", self.said(), re.MULTILINE)
        assert found is not None, self.said()
        return int(found[1])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def taskflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(COMMAND, *arguments)

    def python(self, code: str) -> str:
        done = self.run(sys.executable, "-c", code)
        assert done.returncode == 0, done.stderr + self.said()
        return done.stdout.strip()


@pytest.mark.slow
def test_ctrl_c_while_it_starts_is_no_error(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    try:
        assert until((tmp_path / ".taskflow" / "owner.json").exists, 30), dev.said()
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.process.wait(60) == 0, dev.said()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(dev.process.pid, signal.SIGKILL)
    assert "stopped" in dev.said()
    assert "TaskFlow runs" not in dev.said()


@contextmanager
def running(folder: Path, **how: Any) -> Iterator[Dev]:
    started = Dev(folder, **how)
    try:
        assert until(lambda: "ctrl-c" in started.said() or started.process.poll() is not None, 60)
        assert started.process.poll() is None, started.said()
        yield started
    finally:
        started.process.send_signal(signal.SIGTERM)
        try:
            started.process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(started.process.pid, signal.SIGKILL)


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    (tmp_path / "tasks.py").write_text(TASKS)
    with running(tmp_path) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_first_quarter_of_an_hour(dev: Dev) -> None:
    file = dev.folder / ".taskflow" / "client.json"
    assert file.stat().st_mode & 0o777 == 0o600

    # The command has become the server: as its parent it would keep the settings of the stores where tasks find them.
    assert "services.dev.main" in Path(f"/proc/{dev.process.pid}/cmdline").read_text().split("\0")

    # The snippet of design.md §6, in another process.
    task_id, version = dev.python(SNIPPET).split()
    assert version == "1"

    # The command follows it.
    watched = dev.taskflow("task", "watch", task_id)
    assert watched.returncode == 0, watched.stderr
    assert "COMPLETED" in watched.stdout
    assert '"version": 1' in watched.stdout
    submitted = dev.taskflow("task", "submit", "examples.hello:hello", "name=you", "--watch")
    assert (submitted.returncode, "Hello, you!" in submitted.stdout) == (0, True), submitted.stderr
    failed = dev.taskflow("task", "submit", "tasks:count", "path=/nowhere", "--max-attempts", "1", "--watch")
    assert failed.returncode == 1
    assert "FileNotFoundError" in failed.stdout
    assert dev.taskflow("task", "get", "@latest").returncode == 0
    assert "tasks:count" in json.dumps(json.loads(dev.taskflow("worker", "ls", "-o", "json").stdout))
    examined = dev.taskflow("doctor")
    assert examined.returncode == 0, examined.stdout
    verified = dev.taskflow("verify")
    assert verified.returncode == 0, verified.stdout
    assert "nothing contradicts them" in verified.stdout

    # A changed file is run as it is now.
    (dev.folder / "tasks.py").write_text(TASKS.replace('"version": 1', '"version": 2'))
    assert until(lambda: dev.python(SNIPPET).split()[1] == "2", 30), dev.said()

    # What dies comes back, and what was submitted meanwhile is not lost.
    for name in ("worker", "scheduler", "api"):
        pid = dev.pid(name)
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    assert dev.python(SNIPPET.replace("timeout=30", "timeout=60")).split()[1] == "2"

    # It stops cleanly, and leaves no process behind.
    dev.process.send_signal(signal.SIGINT)
    os.killpg(dev.process.pid, signal.SIGINT)
    assert until(lambda: dev.process.poll() is not None, 40), dev.said() + dev.living()
    assert dev.process.returncode == 0, dev.said()
    here = str(dev.folder)
    left = [one for one in psutil.process_iter(["cmdline"]) if here in " ".join(one.info["cmdline"] or [])]
    assert left == []
    assert dev.taskflow("task", "list").returncode == 3
