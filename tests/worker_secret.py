"""The secret with which the workers of tests register, where a test is not about secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from core import queue_manager as queue

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET = UUID(int=0x5EC)


async def claim_behind_its_back(tx: Any, ids: Sequence[UUID], worker: UUID, types: Sequence[str]) -> int:
    """Claim for a worker process, whose secret only it knows: as the owner of the tables, in one transaction."""
    own = await tx.fetchval("select secret_hash from workers where id = $1", worker)
    await tx.execute("update workers set secret_hash = sha256(uuid_send($2)) where id = $1", worker, SECRET)
    claimed = await queue.claim(tx, ids, worker=worker, secret=SECRET, claim=uuid4(), types=types)
    await tx.execute("update workers set secret_hash = $2 where id = $1", worker, own)
    return len(claimed)
