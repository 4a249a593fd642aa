"""A real worker in a process of its own, and the few hands of a leader that its tests need."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from core import queue_manager as queue
from core.domain.lifecycle import ENDED
from core.domain.task import Submission
from core.errors import Unavailable
from core.pool import Database
from tests.kid import ROOT
from tests.lookout import happens
from tests.signals import until

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Sequence


class WorkerProcess:
    """`python -m services.worker.main` with a heartbeat of half a second; its log lines are kept."""

    def __init__(self, variables: dict[str, str], *, under: Sequence[str] = (), **settings: str) -> None:
        """`under`: a command that becomes the worker, as `setpriv` does."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        said = {
            "TASKFLOW_WORKER_MODULES": "tests.handlers",
            "TASKFLOW_WORKER_CHILDREN": "2",
            "TASKFLOW_REDIS": "off",
            "HEARTBEAT_INTERVAL_SECONDS": "0.5",
            "PYTHONPATH": str(ROOT),
        }
        self.process = subprocess.Popen(
            [*under, sys.executable, "-u", "-m", "services.worker.main"],
            env={**inherited, **said, **variables, **settings},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(timeout=5)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        found = []
        for line in list(self.lines):
            if line.startswith("{"):
                record = json.loads(line)
                if record.get("event") == event:
                    found.append(record)
        return found

    def ready(self, within: float = 20.0) -> Self:
        until(lambda: self.said("ready") or self.process.poll() is not None, within=within)
        assert self.process.poll() is None, "\n".join(self.lines)
        return self

    def children(self) -> list[int]:
        """The process ids of its children."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def called(self, name: str) -> list[int]:
        """Those of its children that have this name: taskflow-child, or taskflow-forks for the one they come from."""
        found = []
        for pid in self.children():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
                if Path(f"/proc/{pid}/comm").read_text().rstrip("\n") == name:
                    found.append(pid)
        return found


class House:
    """What a test asks PostgreSQL, and what the leader would do meanwhile."""

    def __init__(self, database: Database, owner: int) -> None:
        self.database = database
        self._owner = owner

    async def submit(self, handler: str, number: int = 1, /, **more: Any) -> list[UUID]:
        """Submit tasks of tests/handlers.py; `more` are arguments, or fields of the submission with a leading `_`."""
        fields = {name[1:]: value for name, value in more.items() if name.startswith("_")}
        arguments = {name: value for name, value in more.items() if not name.startswith("_")}
        tasks = [
            Submission(
                id=uuid4(),
                owner_id=self._owner,
                type=f"tests.handlers:{handler}",
                payload=json.dumps(arguments),
                **fields,
            )
            for _ in range(number)
        ]
        async with self.database.begin() as tx:
            await queue.submit(tx, tasks)
        return [task.id for task in tasks]

    async def submit_to(self, queue_name: str, *tasks: tuple[str, dict[str, Any]]) -> list[UUID]:
        """Submit tasks by type and arguments to a queue of their own."""
        submissions = [
            Submission(id=uuid4(), owner_id=self._owner, type=name, payload=json.dumps(arguments), queue=queue_name)
            for name, arguments in tasks
        ]
        async with self.database.begin() as tx:
            await queue.ensure_queues(tx, [queue_name])
            await queue.submit(tx, submissions)
        return [one.id for one in submissions]

    async def rows(self, ids: Sequence[UUID]) -> list[dict[str, Any]]:
        async with self.database.connection() as tx:
            found = await tx.fetch(
                "select *, status::text as status from tasks where id = any ($1::uuid[]) order by id", list(ids)
            )
        return [dict(row) for row in found]

    async def row(self, task: UUID) -> dict[str, Any]:
        return (await self.rows([task]))[0]

    async def statuses(self, ids: Sequence[UUID]) -> set[str]:
        return {row["status"] for row in await self.rows(ids)}

    async def events(self, task: UUID) -> list[tuple[str, str | None]]:
        async with self.database.connection() as tx:
            found = await tx.fetch(
                "select event_type::text as kind, cause from task_events where task_id = $1 order by created_at, id",
                task,
            )
        return [(row["kind"], row["cause"]) for row in found]

    async def lead(self) -> None:
        """One tick of the leader: what is due becomes QUEUED."""
        async with self.database.begin() as tx:
            await queue.promote_due(tx, 1000)

    async def ended(self, ids: Sequence[UUID], within: float = 30.0) -> list[dict[str, Any]]:
        """Lead until all have ended, and return their rows."""

        async def over() -> bool:
            with suppress(Unavailable):
                await self.lead()
                return await left_none()
            return False

        async def left_none() -> bool:
            async with self.database.connection() as tx:
                left = await tx.fetchval(
                    "select count(*) from tasks where id = any ($1::uuid[]) and not status::text = any ($2::text[])",
                    list(ids),
                    [status.value for status in ENDED],
                )
            await asyncio.sleep(0.01)
            return bool(left == 0)

        await happens(over, within)
        return await self.rows(ids)

    async def becomes(self, task: UUID, status: str, within: float = 15.0) -> dict[str, Any]:
        """Wait, without leading, until a task has a status."""

        async def there() -> bool:
            return bool((await self.row(task))["status"] == status)

        await happens(there, within)
        return await self.row(task)


@asynccontextmanager
async def house(url: str) -> AsyncIterator[House]:
    async with Database(url, name="tf-test", size=4) as database:
        async with database.begin() as tx:
            owner = await tx.fetchval(
                "insert into users (email, username, password) values ('a@b.c', 'a', '') returning id"
            )
            await queue.ensure_partitions(tx)
            await queue.ensure_queues(tx, ["default"])
        yield House(database, owner)
