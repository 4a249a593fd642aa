"""Tables as they are after months: millions of rows, written by PostgreSQL itself because nothing else is as quick.

Only what the measured statements look at is filled in. Ids grow with the row's number, as UUIDs of version 7 do.
"""

from core import queue_manager as queue
from core.database import Database

QUEUE = "bench"
_ID = "('0192{kind}' || lpad(to_hex(n), 24, '0'))::uuid"
_BACKLOG = """
insert into tasks (id, seq, owner_id, type, queue, priority, payload, payload_bytes, status)
select {id}, nextval('task_seq'), $1, $2, $3, 'NORMAL', 'null', 4, 'QUEUED'
from generate_series(1, $4::bigint) as n
"""
_HISTORY = """
insert into tasks (id, owner_id, type, queue, priority, payload, payload_bytes, status, attempt, started_at,
                   finished_at, result)
select {id}, $1, $2, $3, 'NORMAL', 'null', 4, 'COMPLETED', 1, now() - interval '1 hour',
       now() - interval '1 hour', 'null'
from generate_series($4::bigint, $5::bigint) as n
"""
_GATED = """
insert into tasks (id, owner_id, type, queue, priority, payload, payload_bytes, status, gated, concurrency_key)
select {id}, $1, $2, $3, 'NORMAL', 'null', 4, 'PENDING', true, case when $4 = 'one' then 'full' else 'k' || n end
from generate_series(1, $5::bigint) as n
"""
_TAKEN = """
insert into tasks (id, seq, owner_id, type, queue, priority, payload, payload_bytes, status, gated, permit,
                   concurrency_key)
values (gen_random_uuid(), nextval('task_seq'), $1, $2, $3, 'NORMAL', 'null', 4, 'QUEUED', true, true, 'full')
"""
PART = 1_000_000  # rows of one statement


async def _execute(database: Database, text: str, kind: str, *values: object) -> None:
    async with database.connection() as tx:
        await tx.execute(text.format(id=_ID.format(kind=kind)), *values, timeout=1200)


async def empty(database: Database) -> None:
    """Forget all tasks."""
    async with database.connection() as tx:
        await queue.ensure_queues(tx, [QUEUE])
        await tx.execute("truncate tasks, task_events, task_logs")


async def backlog(database: Database, kind: str, count: int, owner: int) -> None:
    """Tasks that wait, without their CREATED events."""
    for start in range(0, count, PART):
        part = f"a{start // PART:01x}b0"
        await _execute(database, _BACKLOG, part, owner, kind, QUEUE, min(PART, count - start))


async def history(database: Database, kind: str, count: int, owner: int) -> None:
    """Tasks that completed an hour ago."""
    for start in range(0, count, PART):
        await _execute(database, _HISTORY, "c0d0", owner, kind, QUEUE, start + 1, min(start + PART, count))


async def gated(database: Database, kind: str, owner: int, *, held: int, keys: int) -> None:
    """`held` tasks behind one key that is full, and one task for each of `keys` keys."""
    await _execute(database, _TAKEN, "", owner, kind, QUEUE)
    await _execute(database, _GATED, "e0f0", owner, kind, QUEUE, "one", held)
    await _execute(database, _GATED, "e1f0", owner, kind, QUEUE, "each", keys)


async def settle(database: Database) -> None:
    """Do what autovacuum does within minutes."""
    async with database.connection() as tx:
        await tx.execute("vacuum analyze tasks", timeout=1200)
        await tx.execute("checkpoint", timeout=1200)
