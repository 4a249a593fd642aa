"""One claim: ids in, tasks out. An answer that was lost is read back, so that nothing is held unknowingly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

from core import clock, telemetry
from core import queue_manager as queue
from core.errors import CommitUnknown, Unavailable
from core.pool import heed_cancel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from core.domain.task import Claimed
    from core.pool import Database
    from services.worker.holding import Holding
    from services.worker.identity import Identity

_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
log = telemetry.get_logger("worker.claiming")


class Claimer:
    """Claims for this worker."""

    def __init__(self, database: Database, holding: Holding, identity: Identity) -> None:
        self._database = database
        self._holding = holding
        self._identity = identity

    async def claim(self, ids: Sequence[UUID], types: Sequence[str], *, solo: bool = False) -> list[Claimed]:
        """Return what could be claimed. Raises Unavailable when nothing was.

        The claim's token is made before it is asked for, and noted until the answer is here: the inventory leaves
        its rows alone for so long. What was claimed under an id that died meanwhile is rescued, so it is dropped.
        """
        worker, token = self._identity.id, uuid4()
        self._holding.claims.add(token)
        try:
            try:
                async with self._database.connection() as tx:
                    claimed = await queue.claim(tx, ids, worker=worker, claim=token, types=types, solo=solo)
            except CommitUnknown:
                claimed = await self._read_back(ids, token)
        finally:
            self._holding.claims.discard(token)
        return claimed if worker == self._identity.id else []

    async def unclaimed(self, ids: Sequence[UUID], types: Sequence[str]) -> dict[UUID, queue.Why]:
        """Return why they were not claimed. Raises Unavailable."""
        async with self._database.connection() as tx:
            return await queue.unclaimed(tx, ids, types)

    async def _read_back(self, ids: Sequence[UUID], token: UUID) -> list[Claimed]:
        pause = _PAUSE
        while True:
            heed_cancel()
            try:
                async with self._database.connection() as tx:
                    found = await queue.claimed_under(tx, ids, token)
            except Unavailable:
                await clock.system.sleep(pause * (0.5 + clock.rand()))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                log.info("the answer to a claim was lost and read back", asked=len(ids), claimed=len(found))
                return found
