"""What a task reaches that is not its own: tried by a task of a real worker, held equal to the table in SECURITY.md.

TASKFLOW_GOLDEN=write writes the table's cells anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskflow_queue import runner_landlock
from tests import reaching
from tests.kid import ROOT
from tests.reaching import AS_ROOT, AS_USER, LANDLOCK, OLD_LANDLOCK
from tests.users import IS_ROOT, UID, Root, as_user, open_to_all
from tests.working import WorkerProcess, house

if TYPE_CHECKING:
    import pytest

    from tests.working import House

FULL = os.environ.get("TASKFLOW_TEST_FAULTS") == "full"
WRITE = os.environ.get("TASKFLOW_GOLDEN") == "write"


@dataclass(frozen=True)
class Where:
    """A worker as it may be run. `version` is what it takes the kernel's Landlock for, None for what it is."""

    name: str
    column: str
    root: Root = Root.NO
    no_new_privs: bool = True
    version: int | None = None
    protection: str = "on"

    def possible(self) -> bool:
        """Whether this machine can show it."""
        needed = 6 if self.column == LANDLOCK else self.version or 0
        return (IS_ROOT or self.root is Root.NO) and runner_landlock.version() >= needed


ALWAYS = (
    Where("root", AS_ROOT, root=Root.ALL, no_new_privs=False),
    Where("another user, no Landlock", AS_USER, version=0),
    Where("another user, Landlock 5", OLD_LANDLOCK, version=5),
    Where("another user, this kernel's Landlock", LANDLOCK),
)
MORE = (
    Where("another user, protection off", AS_ROOT, protection="off"),
    Where("another user, no_new_privs not set", AS_USER, no_new_privs=False),
    Where("another user, Landlock 1", AS_USER, version=1),
    Where("another user, Landlock 2", OLD_LANDLOCK, version=2),
    Where("root in a container, no Landlock", AS_USER, root=Root.FEW, no_new_privs=False),
    Where("root in a container, Landlock 5", OLD_LANDLOCK, root=Root.FEW, version=5),
    Where("root in a container, this kernel's Landlock", LANDLOCK, root=Root.FEW),
)


class Trial:
    """A worker in such a place, and what a task of it found."""

    def __init__(self, where: Where, url: str, folder: Path) -> None:
        folder.mkdir()
        if IS_ROOT and where.root is Root.NO:
            shutil.chown(folder, UID, UID)
        self.where = where
        self.answers: dict[str, dict[str, str]] = {}
        self._inherited: list[str] = []
        self._canary, self._password = secrets.token_hex(16), secrets.token_hex(16)
        self._queue, self._finished = f"reach-{secrets.token_hex(4)}", folder / "finished"
        settings = {
            "DATABASE_URL": url.replace("@", f":{self._password}@", 1),
            "TASKFLOW_WORKER_QUEUES": self._queue,
            "TASKFLOW_WORKER_MODULES": "reach",
            "TASKFLOW_WORKER_PASS_ENV": reaching.VERSION,
            reaching.VERSION: "" if where.version is None else str(where.version),
            "TASKFLOW_PROCESS_PROTECTION": where.protection,
            "PYTHONPATH": f"{reaching.INSIDE}:{ROOT}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder),
        }
        self.worker = WorkerProcess(settings, under=as_user(where.root, no_new_privs=where.no_new_privs))

    async def run(self, home: House) -> None:
        """Have a task look for what another one holds."""
        sought = {"payload": self._canary[::-1], "password": self._password[::-1], "others": {}}
        held, tried = await home.submit_to(
            self._queue,
            ("reach:hold", {"canary": self._canary, "until": str(self._finished)}),
            ("reach:reach", {**sought, "finished": str(self._finished)}),
        )
        rows = {row["id"]: row for row in await home.ended([held, tried])}
        assert rows[tried]["status"] == "COMPLETED", (self.where.name, rows[tried]["error"], self.worker.lines)
        self.answers = json.loads(rows[tried]["result"])

    def ready(self) -> None:
        """Wait until the worker is, and note what its fork server has inherited."""
        self.worker.ready(within=60)
        [server] = self.worker.called("taskflow-forks")
        self._inherited = [str(link.readlink()) for link in Path(f"/proc/{server}/fd").iterdir() if int(link.name) > 2]

    def judge(self) -> dict[str, str]:
        """Its column of the table, once it is certain that the attempts were real ones."""
        if self.where.column == AS_ROOT:
            for attempt in ("environ", "password in memory", "payload in memory"):
                assert self.answers["supervisor"][attempt] == reaching.FOUND, "what is looked for is not there"
        assert reaching.FOUND not in self.answers["fork server"].values(), "it holds a secret"
        assert len([one for one in self._inherited if one.startswith("socket:")]) == 1
        assert [one for one in self._inherited if "socket:" not in one and "landlock-ruleset" not in one] == []
        return reaching.cells(self.answers)

    def told(self) -> int:
        """How many lines say that tasks are not confined, or less than they could be."""
        return len([line for line in self.worker.lines if "confined" in line])


async def test_a_task_reaches_what_the_table_in_security_md_says(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_to_all(tmp_path)
    places = [where for where in (*ALWAYS, *(MORE if FULL else ())) if where.possible()]
    with ExitStack() as stack:
        trials = [Trial(where, database_url, tmp_path / str(number)) for number, where in enumerate(places)]
        for trial in trials:
            stack.enter_context(trial.worker)
        for trial in trials:
            trial.ready()
        async with house(database_url) as home:
            await asyncio.gather(*(trial.run(home) for trial in trials))
    for trial in trials:
        found = trial.judge()
        if WRITE:
            reaching.rewrite(trial.where.column, found)
        assert found == reaching.column(trial.where.column), trial.where.name
        expected = trial.where.version is not None and trial.where.no_new_privs and trial.where.protection == "on"
        assert trial.told() == int(expected), trial.worker.lines
    if FULL:
        with capsys.disabled():
            print(f"\n{reaching.as_markdown({trial.where.name: trial.answers for trial in trials})}")
