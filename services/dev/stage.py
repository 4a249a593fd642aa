"""The stage: stores, an account, and the processes. Everything of it is gone when the block ends."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import config, embedded, local, migrate
from core.config import given, settings
from services.dev import fleet as fleets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.embedded import Servers
    from services.dev.fleet import Fleet, Member


@dataclass(slots=True)
class Stage:
    """What runs. `servers` are the stage's own only where they have a pid."""

    servers: Servers
    fleet: Fleet
    api: Member
    schedulers: list[Member]
    workers: list[Member]
    owner: int
    key: str

    @property
    def url(self) -> str:
        return fleets.url(self.api)


@contextmanager
def stage(
    modules: Sequence[str], *, redis: bool = True, heartbeat: float | None = None, schedulers: int = 2, workers: int = 2
) -> Iterator[Stage]:
    """Start it all, with workers that serve `modules`, and stop it all, in whatever way the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="taskflow-stage-"))
    folder.chmod(0o711)  # PostgreSQL may run as another user
    # The fleet, and with it the guardian, comes first: from here on a kill -9 leaves nothing behind either.
    with fleets.Fleet(folder / "logs", {}, temporary=folder) as fleet:
        try:
            servers = embedded.start(folder, redis=None if redis else False)
            fleet.env |= _settings(servers, folder, heartbeat)
            migrate.upgrade(settings.database_url)
            owner, key = _account()
            api = fleet.api()
            crew = [fleet.scheduler() for _ in range(schedulers)]
            hands = [fleet.worker(*modules) for _ in range(workers)]
            fleet.ready()
            yield Stage(servers, fleet, api, crew, hands, owner, key)
        finally:
            fleet.stop(*fleet.members)
            embedded.stop(folder, delete=True)
            shutil.rmtree(folder, ignore_errors=True)


def _settings(servers: Servers, folder: Path, heartbeat: float | None) -> dict[str, str]:
    """The settings of this process and of all others: what the environment says, and the stores."""
    said = {name: os.environ[name] for name in map(config.variable, config.Settings.model_fields) if name in os.environ}
    said |= servers.env()
    if not given("secret_key"):
        said["SECRET_KEY"] = embedded.secret_key(folder)
    said |= {"TASKFLOW_ENV": "development", "TASKFLOW_API_HOST": "127.0.0.1", "TASKFLOW_METRICS_PORT": "0"}
    said["TASKFLOW_WORKER_DRAIN_SECONDS"] = "5"
    if heartbeat is not None:
        said["HEARTBEAT_INTERVAL_SECONDS"] = f"{heartbeat:g}"
    os.environ.update(said)
    config.reload()
    return said


def _account() -> tuple[int, str]:
    from core import database

    factory: Any = database.SessionLocal
    with factory.begin() as session:
        user = local.owner(session, f"stage-{secrets.token_hex(4)}")
        return user.id, local.key_of(session, user, None)
