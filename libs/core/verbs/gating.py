"""The gate: how gated tasks become QUEUED, within the caps of their key and their queue.

Two leaders, a lost COMMIT or a paused one cannot exceed a cap: the count is taken after an exclusive lock, in a
statement of its own, and includes whatever the last holder committed.
"""

from collections.abc import Sequence

from core.domain.gates import GateKey, narrowest, room
from core.domain.task import Moved
from core.pool import Tx
from core.sql import statement
from core.verbs import rows
from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK

FIRST_KEY = GateKey(queue="", owner_id=-1, key="")


async def promote_gated(tx: Tx, keys: Sequence[GateKey], *, types: Sequence[str], most: int = 1000) -> list[Moved]:
    """Let tasks of `keys` through as far as their caps allow, `most` of a key; only announced `types`."""
    wanted = list(dict.fromkeys(keys))
    await tx.execute(statement("gate_lock"), ADVISORY_CLASS, GATE_LOCK)
    counts = await tx.fetch(
        statement("gate_count"),
        [key.queue for key in wanted],
        [key.owner_id for key in wanted],
        [k.key for k in wanted],
    )
    open_gates: list[tuple[GateKey, int, int | None]] = []
    for row in counts:
        key = GateKey(queue=row["queue"], owner_id=row["owner_id"], key=row["key"])
        key_room = room(row["max_per_key"], row["key_active"]) if key.key else None
        queue_room = room(row["max_concurrent"], row["queue_active"])
        free = 0 if row["paused"] else narrowest(key_room, queue_room, most=most)
        if free:
            open_gates.append((key, free, queue_room))
    if not open_gates:
        return []
    found = await tx.fetch(
        statement("gate_promote"),
        [key.queue for key, _, _ in open_gates],
        [key.owner_id for key, _, _ in open_gates],
        [key.key for key, _, _ in open_gates],
        [free for _, free, _ in open_gates],
        list(types),
        [queue_room for _, _, queue_room in open_gates],
    )
    return rows.moved(found)


async def walk_gates(tx: Tx, after: GateKey = FIRST_KEY, limit: int = 500) -> list[GateKey]:
    """Return the next keys after `after` that have a gated task waiting."""
    found = await tx.fetch(statement("gate_walk"), after.queue, after.owner_id, after.key, limit)
    return [GateKey(queue=row["queue"], owner_id=row["owner_id"], key=row["concurrency_key"]) for row in found]
