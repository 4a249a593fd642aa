"""What a worker and an API do, by their own classes, through a connection that breaks (test_commits.py)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from core import queue_manager as queue
from core.domain.lifecycle import Cause
from core.domain.task import Claimed, Ending, Reason, Submission, WorkerFace
from core.errors import CommitUnknown, Unavailable
from core.pool import Database
from services.api import submitting
from services.worker.claiming import Claimer
from services.worker.finishing import Finisher
from services.worker.holding import Holding
from services.worker.identity import Identity
from tests.signals import until

if TYPE_CHECKING:
    from tests.system.proxy import Proxy
    from tests.system.world import World

INERT = "nobody:runs_this"


@dataclass
class Hands:
    """What a worker and an API do, with the connection that is to break, and one that is not."""

    world: World
    proxy: Proxy
    straight: Database

    def database(self) -> Database:
        return Database(self.proxy.url, name="tf-cut", size=1)

    def quiet(self) -> None:
        """Wait until PostgreSQL has done, or dropped, what was sent to it before the cut."""
        until(lambda: not self.world.one("select count(*) from pg_stat_activity where application_name = 'tf-cut'"))

    def submissions(self, number: int = 3) -> list[Submission]:
        return [Submission(id=uuid4(), owner_id=self.world.owner, type=INERT) for _ in range(number)]

    async def queued(self) -> list[UUID]:
        async with self.straight.begin() as tx:
            return [born.id for born in await queue.submit(tx, self.submissions())]

    async def identity(self) -> Identity:
        identity = Identity(lease_seconds=60)
        face = WorkerFace(
            id=identity.id,
            secret=identity.secret,
            name="t",
            queues=("default",),
            sync_types=(INERT,),
            async_types=(),
            sync_slots=9,
            async_slots=0,
        )
        async with self.straight.connection() as tx:
            await queue.register_worker(tx, face)
        return identity

    # Each verb: do it through a new connection of the proxy, and check what it said against the rows.

    async def submit(self) -> str:
        tasks = self.submissions()
        async with self.database() as database:
            submitter = submitting.Submitter(database, database, _no_hint)
            submitter._queues.add("default")
            said = await _attempt(submitter.submit(tasks))
            await submitter.close()
        self.quiet()
        statuses = self.world.statuses(str(task.id) for task in tasks)
        assert len(statuses) in {"3 done": {3}, "Unavailable": {0}, "CommitUnknown": {0, 3}}[said]
        return f"{said}, {len(statuses)} there"

    async def claim(self) -> str:
        ids, identity, holding = await self.queued(), await self.identity(), Holding()
        async with self.database() as database:
            said = await _attempt(Claimer(database, holding, identity).claim(ids, [INERT]))
        self.quiet()
        [status] = set(self.world.statuses(map(str, ids)).values())
        assert status == "IN_PROGRESS" or said != "3 done"
        assert holding.claims == set()  # so what was claimed after it was read back is found by the inventory
        return f"{said}, {status}"

    async def finish(self, logs: str | None = None) -> str:
        ids, identity, holding = await self.queued(), await self.identity(), Holding()
        claimed = await Claimer(self.straight, holding, identity).claim(ids, [INERT])
        endings = [_ending(task, logs) for task in claimed]
        holding.close(endings)
        async with self.database() as database:
            finisher = Finisher(database, holding)
            serving = asyncio.create_task(finisher.serve())
            finisher.put(endings)
            async with asyncio.timeout(20):
                await finisher.flushed()
            serving.cancel()
        assert set(self.world.statuses(map(str, ids)).values()) == {"COMPLETED"}
        assert holding.empty
        written = self.world.one("select count(*) from task_logs where task_id = any(%s::uuid[])", [*map(str, ids)])
        assert written == (len(ids) if logs else 0)
        return "3 done"

    async def finish_with_logs(self) -> str:
        return await self.finish("a line\n")


async def _no_hint(_: object) -> None:
    """Nobody is to be told."""


async def _attempt(call: Any) -> str:
    """How it ended, in a word."""
    try:
        return f"{len(await call)} done"
    except CommitUnknown:
        return "CommitUnknown"
    except Unavailable:
        return "Unavailable"


def _ending(task: Claimed, logs: str | None) -> Ending:
    return Ending(
        id=task.id,
        attempt=task.attempt,
        claim=task.claim,
        cause=Cause.SUCCEED,
        reason=Reason.RETURNED,
        result='"x"',
        logs=logs,
    )
