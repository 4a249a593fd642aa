"""One claim: ids in, tasks out. An answer that was lost is read back, so that nothing is held unknowingly."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from core import clock, telemetry
from core import queue_manager as queue
from core.errors import CommitUnknown, Unavailable
from core.pool import heed_cancel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from core.domain.task import Claimed
    from core.pool import Database, Tx
    from services.worker.holding import Holding
    from services.worker.identity import Identity

_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 2.0
STATEMENT_SECONDS: Final = 10.0  # after which PostgreSQL ends a statement of the worker
_LATE_SECONDS: Final = 2.0  # for a statement to arrive, and for its transaction to end
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
        worker, secret, token, session = self._identity.id, self._identity.secret, uuid4(), 0
        until = clock.monotonic() + STATEMENT_SECONDS + _LATE_SECONDS
        self._holding.claims.add(token)
        try:
            try:
                async with self._database.connection() as tx:
                    session = tx.get_server_pid()
                    claimed = await queue.claim(
                        tx, ids, worker=worker, secret=secret, claim=token, types=types, solo=solo
                    )
            except CommitUnknown:
                read = partial(queue.claimed_under, ids=ids, claim=token, worker=worker, secret=secret)
                claimed = await self._read_back(read, session, until)
        finally:
            self._holding.claims.discard(token)
        return claimed if worker == self._identity.id else []

    async def unclaimed(self, ids: Sequence[UUID], types: Sequence[str]) -> dict[UUID, queue.Why]:
        """Return why they were not claimed. Raises Unavailable."""
        async with self._database.connection() as tx:
            return await queue.unclaimed(tx, ids, types)

    async def _read_back(
        self, read: Callable[[Tx], Awaitable[list[Claimed]]], session: int, until: float
    ) -> list[Claimed]:
        """Look for what was claimed until it is there, or cannot come any more; `read` does one look.

        The claim may be carried out as long as its session is there, but not later than its time limit lets it.
        """
        pause = _PAUSE
        while True:
            heed_cancel()
            try:
                async with self._database.connection() as tx:
                    # In this order: what that session committed before it went is seen by the second statement.
                    over = not await queue.session_lives(tx, session) or clock.monotonic() > until
                    found = await read(tx)
            except Unavailable:
                over, found = False, []
            if found or over:
                log.info("the answer to a claim was lost and read back", claimed=len(found))
                return found
            await clock.system.sleep(pause * (0.5 + clock.rand()))
            pause = min(pause * 2, _LONGEST_PAUSE)
