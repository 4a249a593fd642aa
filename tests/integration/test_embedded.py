"""The servers of a laptop: started once, stopped cleanly, recognised after a kill."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
import pytest

from core import config, embedded
from core.embedded.places import Place
from core.embedded.processes import Process
from core.errors import SettingError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder(run_folder: Path) -> Iterator[Path]:
    place = run_folder / f"embedded-{secrets.token_hex(4)}"
    yield place
    embedded.stop(place, delete=True)


def answer(url: str, sql: str = "select 1") -> object:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def test_they_start_once_keep_their_data_over_a_crash_and_end(folder: Path) -> None:
    with embedded.running(folder, postgres=True, redis=True) as servers:
        assert servers == embedded.start(folder, postgres=True, redis=True)
        assert answer(servers.database_url, "show fsync") == "on"
        answer(servers.database_url, "create table kept as select 7 as seven")
        for mode in ("fast", "immediate", "kill"):
            again = embedded.restart_postgres(servers, mode)  # type: ignore[arg-type]
            assert again.database_url == servers.database_url
            assert again.postgres_pid != servers.postgres_pid
            assert answer(servers.database_url, "select seven from kept") == 7
        assert embedded.restart_redis(servers, "low").redis_low == servers.redis_low
        pids = [again.postgres_pid, servers.redis_high_pid]
    assert [Process.of(pid) for pid in pids if pid] == [None, None]
    with embedded.running(folder, postgres=True, redis=False) as servers:
        assert servers.redis_high is None
        assert answer(servers.database_url, "select seven from kept") == 7


def test_a_killed_starters_servers_are_used_and_stopped_by_the_next(folder: Path) -> None:
    code = (
        "import sys, pathlib, time; from core import embedded\n"
        "s = embedded.start(pathlib.Path(sys.argv[1]), postgres=True, redis=True)\n"
        "print(s.postgres_pid, s.redis_low_pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
    assert starter.stdout
    postgres, redis = map(int, starter.stdout.readline().split())
    with embedded.running(folder, postgres=True, redis=True) as servers:  # a living owner: they stay
        assert (postgres, redis) == (servers.postgres_pid, servers.redis_low_pid)
    assert Process.of(postgres)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    with embedded.running(folder, postgres=True, redis=True) as servers:
        assert (postgres, redis) == (servers.postgres_pid, servers.redis_low_pid)
    assert (Process.of(postgres), Process.of(redis)) == (None, None)


def test_a_stale_note_whose_pid_is_somebody_elses_does_not_matter(folder: Path) -> None:
    with embedded.running(folder, postgres=True, redis=True) as servers:
        embedded.stop_postgres(servers, "kill")
        embedded.stop_redis(servers, "high")
        (note,) = folder.glob("postgres/data*/postmaster.pid")
        note.write_text(f"{os.getpid()}\n" + note.read_text().partition("\n")[2])
        assert answer(embedded.start_postgres(servers).database_url) == 1
        assert embedded.start_redis(servers, "high").redis_high == servers.redis_high


def test_a_port_that_another_took_meanwhile_is_given_up(folder: Path) -> None:
    with embedded.running(folder, postgres=False, redis=True) as servers:
        embedded.stop_redis(servers, "high")
        assert servers.redis_high
        with socket.create_server(servers.redis_high):
            assert embedded.start_redis(servers, "high").redis_high != servers.redis_high


def test_an_initdb_that_was_killed_half_way_is_begun_again(folder: Path) -> None:
    with embedded.running(folder, postgres=True, redis=False):
        pass
    (data,) = folder.glob("postgres/data*")
    (data / "PG_VERSION").unlink()
    with embedded.running(folder, postgres=True, redis=False) as servers:
        assert answer(servers.database_url) == 1


def test_two_at_once_start_one(folder: Path) -> None:
    found: list[embedded.Servers] = []
    starting = [
        threading.Thread(target=lambda: found.append(embedded.start(folder, postgres=True, redis=True)))
        for _ in range(3)
    ]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert len(found) == 3
    assert len({servers.postgres_pid for servers in found}) == 1


def test_who_waits_for_another_to_start_them_can_end_it(folder: Path) -> None:
    def look() -> None:
        raise InterruptedError

    with Place(folder).locked(), pytest.raises(InterruptedError):
        embedded.start(folder, postgres=True, redis=True, meanwhile=look)
    assert not (folder / "postgres").exists()


def test_settings_win_over_embedded_servers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/name")
    monkeypatch.setenv("REDIS_HOST_LOW", "low.example")
    config.reload()
    with embedded.running(folder) as servers:
        assert (servers.postgres_pid, servers.redis_low_pid) == (None, None)
        assert servers.env()["DATABASE_URL"] == "postgresql://elsewhere/name"
        assert servers.redis_low == ("low.example", 6379)
        assert servers.redis_high_pid
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    with embedded.running(folder) as servers:
        assert servers.env() == {"TASKFLOW_REDIS": "off", "DATABASE_URL": "postgresql://elsewhere/name"}


def test_a_folder_deep_down_where_only_its_owner_gets_works_too() -> None:
    with tempfile.TemporaryDirectory() as private:  # mode 0700, and too long for a socket
        deep = Path(private) / ("a-long-name" * 6) / ("another-one" * 6)
        with embedded.running(deep, postgres=True, redis=False, delete=True) as servers:
            assert answer(servers.database_url) == 1
            outside = Path((deep / "outside").read_text())
        assert not outside.exists()
        assert not deep.exists()


def test_deleting_removes_only_what_is_ours(folder: Path) -> None:
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with embedded.running(folder, postgres=False, redis=True, delete=True):
        pass
    assert [path.name for path in folder.iterdir()] == ["precious.txt"]
    (folder / "precious.txt").unlink()


def test_a_server_that_cannot_start_says_why_in_one_line(folder: Path) -> None:
    with embedded.running(folder, postgres=True, redis=False) as servers:
        embedded.stop_postgres(servers)
        (version,) = folder.glob("postgres/data*/PG_VERSION")
        version.write_text("9.4\n")
        with pytest.raises(Unavailable, match=r"PostgreSQL did not start: .+") as raised:
            embedded.start_postgres(servers)
        assert "\n" not in str(raised.value)


def test_a_version_that_the_machine_lacks_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFLOW_TEST_PG", "9.4")
    with pytest.raises(SettingError, match=r"no PostgreSQL 9\.4"):
        embedded.start(folder, postgres=True, redis=False)


def test_the_development_key_is_made_once_and_private(folder: Path) -> None:
    key = embedded.secret_key(folder)
    assert key == embedded.secret_key(folder)
    assert len(key) == 64
    assert (folder / "secret-key").stat().st_mode & 0o077 == 0


def test_servers_hear_no_signal_of_our_terminal(folder: Path) -> None:
    with embedded.running(folder, postgres=True, redis=True) as servers:
        ours = os.getsid(0)
        pids = [servers.postgres_pid, servers.redis_high_pid]
        assert all(psutil.pid_exists(pid) and os.getsid(pid) != ours for pid in pids if pid)
