"""Real servers for a laptop and for tests: PostgreSQL and two Redis, out of wheels.

They fill in only what DATABASE_URL and REDIS_HOST_* leave open, keep their files under one directory, and are
started once however many processes ask. Who started them stops them; a server that outlives a killed starter is
found again and used. Never part of production.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from core.config import given, settings
from core.embedded import redis_server
from core.embedded.places import Place
from core.embedded.postgres import Postgres, StopMode
from core.embedded.processes import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Which = Literal["high", "low"]
_BOTH: Final[tuple[Which, Which]] = ("high", "low")

__all__ = [
    "Servers",
    "restart_postgres",
    "restart_redis",
    "running",
    "secret_key",
    "start",
    "start_postgres",
    "start_redis",
    "stop",
    "stop_postgres",
    "stop_redis",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the stores are; a pid is None for a server that is not ours, or not wanted."""

    directory: Path
    database_url: str
    redis_high: tuple[str, int] | None
    redis_low: tuple[str, int] | None
    postgres_pid: int | None = None
    redis_high_pid: int | None = None
    redis_low_pid: int | None = None

    def env(self) -> dict[str, str]:
        """The variables that a child process needs to use these stores."""
        values = {"TASKFLOW_REDIS": "on" if self.redis_high else "off"}
        if self.database_url:
            values["DATABASE_URL"] = self.database_url
        for which, address in (("HIGH", self.redis_high), ("LOW", self.redis_low)):
            if address:
                values[f"REDIS_HOST_{which}"] = address[0]
                values[f"REDIS_PORT_{which}"] = str(address[1])
        return values


def start(
    directory: Path,
    *,
    postgres: bool | None = None,
    redis: bool | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Servers:
    """Start what is wanted and does not run yet. None means: unless the settings already name one.

    While another process starts or stops servers there, `meanwhile` is called now and then; it may raise to end that.
    The environment variable TASKFLOW_TEST_PG chooses a PostgreSQL of the machine by its major version.
    """
    place = Place(directory)
    want_redis = settings.redis if redis is None else redis
    own_postgres = not given("database_url") if postgres is None else postgres
    with place.locked(meanwhile):
        place.own()
        servers = Servers(directory=place.directory, database_url="", redis_high=None, redis_low=None)
        if own_postgres:
            server = Postgres(place, os.environ.get("TASKFLOW_TEST_PG", ""))
            pid = server.start()
            servers = replace(servers, database_url=server.url, postgres_pid=pid)
        elif postgres is None:
            servers = replace(servers, database_url=settings.database_url)
        for which in _BOTH if want_redis else ():
            if redis is None and given(f"redis_host_{which}"):
                address = (getattr(settings, f"redis_host_{which}"), getattr(settings, f"redis_port_{which}"))
                servers = _with_redis(servers, which, address, None)
            else:
                port, pid = redis_server.start(place, which)
                servers = _with_redis(servers, which, (redis_server.HOST, port), pid)
        return servers


def stop(directory: Path, *, delete: bool = False) -> None:
    """Stop every server of this directory, and with `delete` remove all that they wrote."""
    place = Place(directory)
    if not place.directory.exists():
        return
    with place.locked():
        for which in _BOTH:
            redis_server.stop(place, which)
        Postgres(place).stop("fast")
        place.disown()
        if delete:
            place.delete()


@contextmanager
def running(
    directory: Path,
    *,
    postgres: bool | None = None,
    redis: bool | None = None,
    delete: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[Servers]:
    """Servers for as long as the block lasts, unless a living process had them started before: then they stay.

    `meanwhile` is as for `start`.
    """
    try:
        yield start(directory, postgres=postgres, redis=redis, meanwhile=meanwhile)
    finally:
        if Place(directory).owner() == Process.me():
            stop(directory, delete=delete)


def stop_postgres(servers: Servers, mode: StopMode = "fast") -> None:
    """Stop PostgreSQL: `fast` as an operator would, `immediate` as a crash, `kill` with -9."""
    Postgres(Place(servers.directory)).stop(mode)


def start_postgres(servers: Servers) -> Servers:
    """Start PostgreSQL again after `stop_postgres`; its address stays."""
    server = Postgres(Place(servers.directory), os.environ.get("TASKFLOW_TEST_PG", ""))
    return replace(servers, postgres_pid=server.start())


def restart_postgres(servers: Servers, mode: StopMode = "fast") -> Servers:
    """Stop and start PostgreSQL; its address stays."""
    stop_postgres(servers, mode)
    return start_postgres(servers)


def stop_redis(servers: Servers, which: Which) -> None:
    """Kill one Redis; it keeps nothing, so there is no gentler way."""
    redis_server.stop(Place(servers.directory), which)


def start_redis(servers: Servers, which: Which) -> Servers:
    """Start one Redis again, empty, on the port it had."""
    port, pid = redis_server.start(Place(servers.directory), which)
    return _with_redis(servers, which, (redis_server.HOST, port), pid)


def restart_redis(servers: Servers, which: Which) -> Servers:
    """Kill one Redis and start it again, empty, on the port it had."""
    stop_redis(servers, which)
    return start_redis(servers, which)


def secret_key(directory: Path) -> str:
    """A SECRET_KEY for development, made once and kept in the directory, readable by its owner only."""
    path = Place(directory).directory / "secret-key"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # two processes at once: the first one's stands
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.touch(mode=0o600)  # before the secret is in it
        partial.write_text(secrets.token_hex(32), encoding="ascii")
        try:
            os.link(partial, path)
        finally:
            partial.unlink()
    return path.read_text(encoding="ascii")


def _with_redis(servers: Servers, which: Which, address: tuple[str, int], pid: int | None) -> Servers:
    if which == "high":
        return replace(servers, redis_high=address, redis_high_pid=pid)
    return replace(servers, redis_low=address, redis_low_pid=pid)
