"""The gate: how gated tasks become QUEUED, within the caps of their key and their queue.

Two leaders, a lost COMMIT or a paused one cannot exceed a cap: the count is taken after an exclusive lock, in a
statement of its own, and includes whatever the last holder committed.
"""

from collections import Counter
from collections.abc import Sequence

from core.domain.gates import GateKey, narrowest, room
from core.domain.task import Moved
from core.pool import Tx
from core.sql import statement
from core.verbs import rows
from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK

FIRST_KEY = GateKey(queue="", owner_id=-1, key="")
_SIBLINGS = 200


async def promote_gated(tx: Tx, keys: Sequence[GateKey], *, types: Sequence[str], most: int = 1000) -> list[Moved]:
    """Let tasks of `keys` through as far as their caps allow, `most` of a key; only announced `types`.

    Room of a capped queue that they leave, because nothing waits there or may go, is offered to the other keys of
    that queue; the turn goes on from the key that was given last.
    """
    wanted = list(dict.fromkeys(keys))
    await tx.execute(statement("gate_lock"), ADVISORY_CLASS, GATE_LOCK)
    moved, left = await _let_through(tx, wanted, types, most)
    if left:
        places = {key.queue: key for key in wanted if key.queue in left}
        others = [key for key in await _siblings(tx, list(places.values())) if key not in set(wanted)]
        moved += (await _let_through(tx, others, types, most))[0] if others else []
    return moved


async def _let_through(
    tx: Tx, keys: Sequence[GateKey], types: Sequence[str], most: int
) -> tuple[list[Moved], frozenset[str]]:
    """Return what went through, and the capped queues that have room still."""
    counts = await tx.fetch(
        statement("gate_count"), [key.queue for key in keys], [key.owner_id for key in keys], [key.key for key in keys]
    )
    open_gates: list[tuple[GateKey, int, int | None]] = []
    left: Counter[str] = Counter()
    for row in counts:
        key = GateKey(queue=row["queue"], owner_id=row["owner_id"], key=row["key"])
        key_room = room(row["max_per_key"], row["key_active"]) if key.key else None
        queue_room = room(row["max_concurrent"], row["queue_active"])
        if row["paused"]:
            continue
        if queue_room:
            left[key.queue] = queue_room
        if free := narrowest(key_room, queue_room, most=most):
            open_gates.append((key, free, queue_room))
    if not open_gates:
        return [], frozenset(left)
    found = await tx.fetch(
        statement("gate_promote"),
        [key.queue for key, _, _ in open_gates],
        [key.owner_id for key, _, _ in open_gates],
        [key.key for key, _, _ in open_gates],
        [free for _, free, _ in open_gates],
        list(types),
        [queue_room for _, _, queue_room in open_gates],
    )
    moved = rows.moved(found)
    left.subtract(row.queue for row in moved if row.queue in left)
    return moved, frozenset(+left)


async def _siblings(tx: Tx, places: Sequence[GateKey]) -> list[GateKey]:
    """Return the keys that wait in the queues of `places`."""
    found = await tx.fetch(
        statement("gate_siblings"),
        [key.queue for key in places],
        [key.owner_id for key in places],
        [key.key for key in places],
        _SIBLINGS,
    )
    return [GateKey(queue=row["queue"], owner_id=row["owner_id"], key=row["key"]) for row in found]


async def walk_gates(tx: Tx, after: GateKey = FIRST_KEY, limit: int = 500) -> list[GateKey]:
    """Return the next keys after `after` that have a gated task waiting."""
    found = await tx.fetch(statement("gate_walk"), after.queue, after.owner_id, after.key, limit)
    return [GateKey(queue=row["queue"], owner_id=row["owner_id"], key=row["concurrency_key"]) for row in found]
