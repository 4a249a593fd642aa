"""Workers of an earlier version beside those of this one, on one database and under load, there and back."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from core import migrate, roles
from core.errors import Conflict
from core.roles import WorkerRights
from tests.conftest import _database, flush
from tests.integration.conftest import login, make_roles
from tests.signals import until
from tests.system.conftest import FULL
from tests.system.history import verify
from tests.system.world import world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.embedded import Servers
    from services.dev.fleet import Member
    from tests.system.world import World

BEFORE = "9b01780"  # the last version whose workers used the tables
ROOT = Path(__file__).resolve().parents[2]
AHEAD = 200  # tasks that may wait
EACH_PHASE = 120  # tasks that end before the next change
DONE = "select count(*) from tasks where status = 'COMPLETED'"

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not FULL, reason="an environment of its own and three minutes of load: only at full size"),
]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the earlier version, and with the libraries of this one."""
    folder = tmp_path_factory.mktemp("earlier")
    packed = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=True).stdout
    source = folder / "source"
    source.mkdir()
    subprocess.run(["tar", "-x"], cwd=source, input=packed, check=True)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = (source / "libs", source, source / "sdk" / "src", sysconfig.get_path("purelib"))
    (folder / "venv" / "lib" / version / "site-packages" / "earlier.pth").write_text("\n".join(map(str, paths)))
    return str(folder / "venv" / "bin" / "python")


@pytest.fixture
def there(earlier: str, postgres: Servers, _redis_pair: Servers, tmp_path: Path) -> Iterator[World]:
    """A database that the earlier version made, with a role for workers; no process runs yet."""
    make_roles(postgres)
    flush(_redis_pair)
    with _database(postgres, "template0") as url:
        subprocess.run([earlier, "-I", "-m", "core.migrate"], env={**os.environ, "DATABASE_URL": url}, check=True)
        with world(tmp_path, _redis_pair, url) as made:
            yield made


class Load:
    """Tasks that are submitted all the time, by a thread of its own, a bounded number ahead of those that ended."""

    def __init__(self, there: World) -> None:
        self._there = there
        self._history = there.history()
        self._over = threading.Event()
        self._done = 0
        self._thread = threading.Thread(target=self._submit)
        self.ids: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _submit(self) -> None:
        while not self._over.wait(0.05):
            if len(self.ids) - self._done < AHEAD:
                self.ids += self._there.submit_together("work", 10, history=str(self._history))

    def goes_on(self) -> None:
        """Wait until as many more tasks have ended as a phase asks for."""
        start = self._there.one(DONE)

        def ended() -> bool:
            self._done = self._there.one(DONE)
            return self._done >= start + EACH_PHASE

        until(ended, 120, every=0.1)

    def over(self) -> None:
        """Submit nothing more; everything that was accepted must end well, and once."""
        self._over.set()
        self._thread.join(60)
        self._there.ended(self.ids, within=120)
        verify(self._there, self.ids, self._history).clean()


def test_workers_of_two_versions_lose_nothing(there: World, earlier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier version, both, this one, both, the earlier one, both, this one; then the second step."""
    url = there.database_url

    def start(*, old: bool) -> list[Member]:
        with monkeypatch.context() as patch:
            if old:
                patch.setattr(sys, "executable", earlier)
                patch.setenv("TASKFLOW_WORKER_PYTHON", earlier)
            return there.workers(2, DATABASE_URL=login(url, roles.WORKER))

    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", earlier)
        there.api()
        there.schedulers()
    workers = start(old=True)
    with Load(there) as load:
        load.goes_on()
        migrate.upgrade(url)
        assert "taskflow_worker" in roles.grant(url)
        load.goes_on()
        old = True
        for _ in range(3):
            old = not old
            others = start(old=old)
            load.goes_on()
            with pytest.raises(Conflict, match="earlier version"):
                roles.set_worker_rights(url, WorkerRights.FUNCTIONS)
            there.stop(*workers)
            workers = others
            load.goes_on()
        roles.set_worker_rights(url, WorkerRights.FUNCTIONS)
        load.goes_on()
        roles.set_worker_rights(url, WorkerRights.TABLES)
        roles.set_worker_rights(url, WorkerRights.FUNCTIONS)
        load.goes_on()
        load.over()
        print(f"{len(load.ids)} tasks, lost 0")
