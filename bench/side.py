"""One side of a speed pair: a checkout with its own virtual environment, run as processes and asked over REST and SQL.

Nothing of the checkout is imported here, so that two commits with different module names can be measured by one code.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
TASKS = '''"""What both sides run."""

import time

from taskflow_queue import task


@task(queue="bench", name="bench:noop")
async def noop() -> None:
    """Do nothing."""


@task(queue="bench", name="bench:sync_noop")
def sync_noop() -> None:
    """Do nothing, on a thread."""


@task(queue="bench", name="bench:stamp")
async def stamp() -> int:
    """Return the nanosecond at which the handler began."""
    return time.time_ns()
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A commit on disk; `python` is the interpreter of its virtual environment."""

    name: str
    commit: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ".venv" / "bin" / "python"


def check_out(commit: str, home: Path, root: Path) -> Checkout:
    """Unpack `commit` of the repository at `root` under `home`, with a virtual environment of its own.

    A second call uses what the first one made. Raises CalledProcessError when there is no such commit.
    """
    found = subprocess.run(
        ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"], cwd=root, capture_output=True, text=True, check=True
    )
    name = found.stdout.strip()[:12]
    folder = home / name
    if not (folder / "Makefile").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", name], cwd=root, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    print(f"setting up {name}", flush=True)
    subprocess.run(["make", "--no-print-directory", "setup"], cwd=folder, check=True)
    return Checkout(name="baseline", commit=name, folder=folder)


def free_port() -> int:
    """A port of the loopback address that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Side:
    """The running processes of one checkout on one database. A context manager: no process outlives the block."""

    checkout: Checkout
    folder: Path
    stores: Mapping[str, str]
    key: str = ""
    port: int = field(default_factory=free_port)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pairs_tasks.py").write_text(TASKS, encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*self._processes)

    def migrate(self) -> None:
        """Bring the database to this checkout's schema. Raises RuntimeError with what the migrations printed."""
        command = [self.checkout.python, "-m", "core.migrate"]
        done = subprocess.run(command, cwd=self.folder, env=self._env(), check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the migrations of {self.checkout.commit} failed:\n{done.stdout}{done.stderr}")

    def start(self, role: str, variable: str = "TASKFLOW_METRICS_PORT", port: int = 0) -> subprocess.Popen[bytes]:
        """Start a service; `variable` names the setting of the port at which it answers /readyz."""
        port = port or free_port()
        log = (self.folder / f"{len(self._processes):02}-{role}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [self.checkout.python, "-m", f"services.{role}.main"],
                cwd=self.folder,
                env=self._env() | {variable: str(port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        if role != "worker":
            self._wait_ready(process, port)
        return process

    def start_api(self) -> None:
        """Start an API, and make an account with a key for the first one."""
        self.start("api", "TASKFLOW_API_PORT", self.port)
        if not self.key:
            name, password = f"bench-{secrets.token_hex(4)}", secrets.token_hex(16)
            self.ask("/v1/auth/register", {"email": f"{name}@example.org", "username": name, "password": password})
            token = self.ask("/v1/auth/token", {"username": name, "password": password})["access_token"]
            self.key = self.ask("/v1/api-keys", {"name": "bench"}, Authorization=f"Bearer {token}")["key"]

    def ask(self, path: str, body: object, **headers: str) -> Any:
        """POST a body; the answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **({"X-API-Key": self.key} if self.key else {}), **headers},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """End processes, by force after a while."""
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for process in processes:
            try:
                process.wait(max(end - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(STOP_SECONDS)

    def _env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        return kept | {
            **self.stores,
            "SECRET_KEY": "only-for-a-benchmark-on-loopback-0123456789",
            "TASKFLOW_ENV": "development",
            "TASKFLOW_API_HOST": "127.0.0.1",
            "TASKFLOW_METRICS_PORT": "0",
            "TASKFLOW_LOG_LEVEL": "warning",
            "TASKFLOW_WORKER_MODULES": "pairs_tasks",
            "TASKFLOW_WORKER_DRAIN_SECONDS": "5",
            "RATE_LIMIT_SUBMIT_PER_MINUTE": "100000000",
        }

    def _wait_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                    return
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    words = "".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log")))
                    raise RuntimeError(f"{self.checkout.commit} did not become ready:\n{words[-2000:]}") from None
                time.sleep(0.02)


@contextmanager
def running(checkout: Checkout, folder: Path, stores: Mapping[str, str]) -> Iterator[Side]:
    """An API with an account, and a scheduler, on a database that is migrated already."""
    with Side(checkout, folder, stores) as side:
        side.start_api()
        side.start("scheduler")
        yield side
