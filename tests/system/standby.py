"""A second PostgreSQL that follows the first by streaming replication, until it is promoted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Self

import psycopg2

from core.embedded.places import Place
from core.embedded.postgres import _OPTIONS, _PORT, _USER, Postgres
from tests.signals import until

if TYPE_CHECKING:
    from pathlib import Path

    from core.embedded import Servers

NAME = "standby"


def ask(url: str, *statements: str) -> list[Any]:
    """Run statements on a connection of their own, each in a transaction; return the rows of the last one."""
    connection: Any = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


class Standby:
    """The standby of the PostgreSQL of `servers`, with files of its own in `folder`."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.primary_url = servers.database_url
        self._primary = Postgres(Place(servers.directory))
        self._place = Place(folder)
        self._server = Postgres(self._place)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def socket(self) -> str:
        return f"{self._server._socket}/.s.PGSQL.{_PORT}"

    @property
    def primary_socket(self) -> str:
        return f"{self._primary._socket}/.s.PGSQL.{_PORT}"

    @property
    def both_hosts(self) -> str:
        """A URL that names the primary, then the standby."""
        places = f"host={self._primary._socket},{self._server._socket}&port={_PORT},{_PORT}"
        return f"postgresql://{_USER}@/{_USER}?{places}&target_session_attrs=read-write"  # for the test itself

    def __enter__(self) -> Self:
        with self._place.locked():
            self._place.own()
        source = f"host={self._primary._socket} port={_PORT} user={_USER} application_name={NAME}"
        data = self._server._data
        self._do("pg_basebackup", "-D", data, "-d", source, "-X", "stream", "-R", "-c", "fast", seconds=120)
        options = dict(_OPTIONS, unix_socket_directories=str(self._server._socket), port=str(_PORT))
        spelled = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
        self._do("pg_ctl", "start", "-D", data, "-w", "-s", "-l", self._server._log, "-o", spelled, seconds=70)
        until(lambda: self.replication() is not None, 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop("immediate")
        self._place.disown()
        self._place.delete()

    def make_synchronous(self) -> None:
        """From now on the primary confirms no commit that the standby does not have."""
        ask(
            self.primary_url,
            f"alter system set synchronous_standby_names = '{NAME}'",
            "select pg_reload_conf()",
        )
        until(lambda: self.replication() == "sync", 30)

    def replication(self) -> str | None:
        """How the standby follows, as the primary says."""
        rows = ask(self.primary_url, f"select sync_state from pg_stat_replication where application_name = '{NAME}'")
        return str(rows[0][0]) if rows else None

    def promote(self) -> None:
        self._do("pg_ctl", "promote", "-D", self._server._data, "-w", seconds=70)
        assert ask(self.url, "select pg_is_in_recovery()") == [(False,)]

    def _do(self, program: str, *arguments: object, seconds: float) -> None:
        done = self._server._run(self._server._binaries() / program, *arguments, seconds=seconds)
        assert done.returncode == 0, done.stderr
