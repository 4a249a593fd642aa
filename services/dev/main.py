"""`taskflow dev`: everything of TaskFlow on one machine, until ctrl-c.

Starts PostgreSQL and two Redis out of wheels (DATABASE_URL and REDIS_HOST_* win), brings the schema to its head, makes
an account and a key, then runs API, scheduler and worker as processes of their own. Never imports a user's module.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from core import config, database, embedded, local, migrate
from core.clock import monotonic, pause
from core.config import given
from core.errors import SettingError, TaskFlowError
from core.process_protection import protect
from services.dev import fleet as fleets
from services.dev import modules as sources
from services.dev import places
from services.dev.fleet import Fleet
from services.dev.keeper import Keeper
from services.dev.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.embedded import Servers

HOST: Final = "127.0.0.1"
_LOOK: Final = 0.25
_DRAIN_SECONDS: Final = "5"


class _Stop(Exception):
    """Ctrl-C or SIGTERM."""


class Stopping:
    """Whether we were asked to stop, by ctrl-c, SIGTERM or SIGHUP; to be looked at where nothing is half done.

    A handler that raises does so between any two steps of what just runs, and some libraries cannot stand that: one
    that came within Popen.poll left its lock held, and the wait for that process had no end.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self._asked = True

    def look(self) -> None:
        """Raises _Stop, if we were."""
        if self._asked:
            raise _Stop


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run until stopped; the exit code: 0 stopped, 1 it could not start, 2 wrong call or setting."""
    asked = _parse(arguments)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        protect()
        run(asked, Path.cwd(), Stopping())
    except _Stop:
        say("stopped")
        return 0
    except SettingError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    except TaskFlowError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1


def run(asked: argparse.Namespace, folder: Path, stopping: Stopping) -> NoReturn:
    """Start everything, then look after it until asked to stop. Raises _Stop, TaskFlowError."""
    place = folder / ".taskflow"
    started = monotonic()
    with ExitStack() as stack:
        stack.callback(say, "everything is stopped; the data stays in .taskflow/")
        servers = stack.enter_context(embedded.running(place, meanwhile=stopping.look))
        stopping.look()
        stack.callback(places.forget_stores, place)
        port = _port(asked.port)
        url = f"http://{HOST}:{port}"
        environment = _environment(servers, place, folder, asked)
        migrate.upgrade(servers.database_url, meanwhile=stopping.look)
        key = _key(servers.database_url, places.known_key(folder))
        stopping.look()
        fleet = stack.enter_context(Fleet(_empty(place / "logs"), environment))
        stack.callback(say, "stopping …")
        keeper = Keeper(fleet, folder, lambda: asked.modules or sources.found_in(folder), say, reload=asked.reload)
        members = [
            fleet.api(port=port, name="api"),
            fleet.scheduler(name="scheduler"),
            fleet.worker(*keeper.modules(), name="worker"),
        ]
        keeper.keep(*members)
        fleet.ready(*members[:2], meanwhile=stopping.look)
        file = places.write_client(folder, url, key)
        places.write_stores(place, environment)
        _show(servers, keeper, url, key=f"{key} ({file.relative_to(folder)})", seconds=monotonic() - started)
        tail = Tail(say)
        while True:
            keeper.look()
            tail.look(fleet.members)
            stopping.look()
            pause(_LOOK)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="taskflow dev")
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--children", type=int, default=0)
    parser.add_argument("--no-reload", dest="reload", action="store_false")
    return parser.parse_args(arguments)


def _empty(logs: Path) -> Path:
    """The logs of the last run would be read as this one's."""
    for log in logs.glob("*.log"):
        log.unlink()
    return logs


def _port(wanted: int) -> int:
    """Return a port for the API: the wanted one unless somebody has it."""
    if wanted and _is_free(wanted):
        return wanted
    found = fleets.free_port()
    if wanted:
        say(f"port {wanted} is taken: the API uses {found}")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the API does: an old connection may linger
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _environment(servers: Servers, place: Path, folder: Path, asked: argparse.Namespace) -> dict[str, str]:
    """Return what our processes get: the person's own settings, the stores, and what suits one machine."""
    here = os.environ  # noqa: TID251 - it is handed on, not read
    names = [*map(config.variable, config.Settings.model_fields), "TASKFLOW_URL", "TASKFLOW_API_KEY"]
    own = {name: here[name] for name in names if name in here}
    path = os.pathsep.join(filter(None, [str(folder), here.get("PYTHONPATH")]))
    suits = {
        "TASKFLOW_ENV": "development",
        "TASKFLOW_WORKER_DRAIN_SECONDS": _DRAIN_SECONDS,
        # Tasks may submit tasks: the client finds its key in .taskflow/client.json, unless these say otherwise.
        "TASKFLOW_WORKER_PASS_ENV": "TASKFLOW_URL,TASKFLOW_API_KEY",
    }
    if more := own.pop("TASKFLOW_WORKER_PASS_ENV", ""):
        suits["TASKFLOW_WORKER_PASS_ENV"] += f",{more}"
    if not given("secret_key"):
        suits["SECRET_KEY"] = embedded.secret_key(place)
    if asked.children:
        own["TASKFLOW_WORKER_CHILDREN"] = str(asked.children)
    return {**suits, **own, **servers.env(), "TASKFLOW_API_HOST": HOST, "PYTHONPATH": path}


def _key(database_url: str, known: str | None) -> str:
    """Return a key of this machine's account: the one it has, as long as it works."""
    with config.override(database_url=database_url):
        factory: Any = database.SessionLocal
        with factory.begin() as session:
            return local.key_of(session, local.owner(session, "dev"), known)


def _show(servers: Servers, keeper: Keeper, url: str, *, key: str, seconds: float) -> None:
    """Say what runs where, and what to do next."""
    rows = [("postgresql", servers.postgres_pid, "yours" if servers.postgres_pid is None else "embedded")]
    for name, address, pid in (
        ("redis high", servers.redis_high, servers.redis_high_pid),
        ("redis low", servers.redis_low, servers.redis_low_pid),
    ):
        if address is not None:
            rows.append((name, pid, f"{address[0]}:{address[1]}"))
    tells = {"api": url, "scheduler": "", "worker": ", ".join(keeper.modules())}
    rows += [(one.member.name, one.member.pid, tells[one.member.role]) for one in keeper.kept]
    say(f"TaskFlow runs, after {seconds:.1f} s:")
    for name, number, tell in rows:
        say(f"  {name:<11} {number or '-':>7}  {tell}")
    say(f"  API key     {key}")
    say("  logs        .taskflow/logs/")
    say("in another terminal, in this folder:")
    say("  taskflow task submit examples.hello:hello name=you --watch")
    say("ctrl-c stops everything")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
