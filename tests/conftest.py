"""Real stores for tests: one PostgreSQL for the whole run, a database of its own for each test, two Redis.

The servers are always our own, whatever DATABASE_URL says, because tests drop databases and flush Redis.
Under xdist the first worker that needs a server starts it; the controller stops them all at the end.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from core import config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.embedded import Servers

SECRET_KEY = "a-key-for-tests-only-that-is-long-enough"
TEMPLATE = "template_taskflow"
_FOLDER = "TASKFLOW_TEST_FOLDER"

settings.register_profile("taskflow", deadline=None)  # how long an example takes depends on who else is busy
settings.load_profile("taskflow")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix="taskflow-tests-"))
        folder.chmod(0o711)  # PostgreSQL may run as another user
        (folder / "pid").write_text(str(os.getpid()))
        os.environ[_FOLDER] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and _FOLDER in os.environ:
        _remove(Path(os.environ.pop(_FOLDER)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: at the end one of them would have its worker go on alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def _sweep() -> None:
    """Stop the servers of a test run that was killed."""
    for folder in Path(tempfile.gettempdir()).glob("taskflow-tests-*"):
        try:
            os.kill(int((folder / "pid").read_text()), 0)
        except (ProcessLookupError, FileNotFoundError, ValueError):
            _remove(folder)
        except PermissionError:  # another user's
            continue


def _remove(folder: Path) -> None:
    from core import embedded

    for place in [path.parent for path in folder.glob("*/owner.json")]:
        embedded.stop(place, delete=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in config.Settings.model_fields:
        monkeypatch.delenv(config.variable(name), raising=False)
    monkeypatch.setattr(config, "ENV_FILE", None)
    config.reload()
    yield
    config.reload()


@pytest.fixture(scope="session")
def run_folder() -> Path:
    """A folder of this test run, shared by its xdist workers."""
    return Path(os.environ[_FOLDER])


@pytest.fixture(scope="session")
def postgres(run_folder: Path) -> Servers:
    """The run's PostgreSQL. Do not restart it: other tests use it at the same time (see `own_servers`)."""
    from core import embedded

    return embedded.start(run_folder / "pg", postgres=True, redis=False)


@pytest.fixture(scope="session")
def _redis_pair(run_folder: Path, worker_id: str) -> Servers:
    from core import embedded

    return embedded.start(run_folder / f"redis-{worker_id}", postgres=False, redis=True)


@pytest.fixture(scope="session")
def template(postgres: Servers, run_folder: Path) -> str:
    """The name of a database at the newest schema, to be copied."""
    from core import migrate
    from core.embedded.places import Place

    done = run_folder / "template-made"
    with Place(run_folder / "template").locked():
        if not done.exists():
            _admin(postgres, f"drop database if exists {TEMPLATE}", f"create database {TEMPLATE} template template0")
            migrate.upgrade(_url(postgres, TEMPLATE))
            done.touch()
    return TEMPLATE


@pytest.fixture
def database_url(postgres: Servers, template: str) -> Iterator[str]:
    """A fresh database at the newest schema."""
    with _database(postgres, template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: Servers) -> Iterator[str]:
    """A fresh database without any schema."""
    with _database(postgres, "template0") as url:
        yield url


@pytest.fixture
def redis_servers(_redis_pair: Servers) -> Servers:
    """Two Redis of this xdist worker, flushed. Restart them with embedded.restart_redis if you must."""
    flush(_redis_pair)
    return _redis_pair


@pytest.fixture
def environment(database_url: str, redis_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A fresh database and flushed Redis as settings of this process; the variables, for child processes."""
    values = {**redis_servers.env(), "DATABASE_URL": database_url, "SECRET_KEY": SECRET_KEY}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    config.reload()
    return values


@pytest.fixture
def own_servers(run_folder: Path) -> Iterator[Servers]:
    """PostgreSQL (at the newest schema) and two Redis for this test alone, to be crashed and restarted."""
    from core import embedded, migrate

    with embedded.running(run_folder / f"own-{secrets.token_hex(4)}", postgres=True, redis=True, delete=True) as own:
        migrate.upgrade(own.database_url)
        yield own


def flush(servers: Servers) -> None:
    """FLUSHALL on both Redis."""
    for address in (servers.redis_high, servers.redis_low):
        assert address is not None
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            assert connection.recv(16) == b"+OK\r\n"


@contextmanager
def _database(postgres: Servers, template: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    _admin(postgres, f"create database {name} template {template}")
    try:
        yield _url(postgres, name)
    finally:
        # By force: an engine that a test left open must not keep its database.
        _admin(postgres, f"drop database if exists {name} with (force)")


def _url(postgres: Servers, name: str) -> str:
    return postgres.database_url.replace("@/taskflow?", f"@/{name}?")


def _admin(postgres: Servers, *statements: str) -> None:
    import psycopg2
    from psycopg2.errors import ObjectInUse

    connection: Any = psycopg2.connect(postgres.database_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                for last in (False, False, True):
                    try:
                        cursor.execute(statement)
                        break
                    except ObjectInUse:  # autovacuum looked into the template just now
                        if last:
                            raise
    finally:
        connection.close()
