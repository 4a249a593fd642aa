"""The checks of `taskflow doctor`: each looks at one thing and says what to do when it is wrong. Changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from redis import exceptions as redis_failure

from core import clock, migrate, redis_client
from core import queue_manager as queue
from core.config import LEASE_BEATS, settings
from core.errors import TaskFlowError
from core.pool import Tx
from core.redis_errors import fix_of, reason_of
from core.sessions import connect
from core.sql import statement

LEAST_POSTGRES: Final = 150000
LEAST_REDIS: Final = (7, 0)
MOST_CLOCK_SECONDS: Final = 5.0  # what an access token may be off by
NEWEST_TASKS: Final = 1000  # `taskflow verify` reads all
HISTORY_SECONDS: Final = 3
LEADER_SECONDS: Final = 8.0  # a leader renews its lease every 4 s
_LEADER_KEY: Final = "tf:leader"
_STEP: Final = 0.25
_MIGRATE: Final = "run: python -m core.migrate (or `taskflow dev`, which does it)"
_START: Final = "start one: `taskflow dev` here, or a worker that has these tasks: taskflow worker MODULE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. `fix` says what to do when it is not `ok`."""

    name: str
    ok: bool
    says: str
    fix: str | None = None


def good(name: str, says: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name=name, ok=True, says=says)


def bad(name: str, says: str, fix: str) -> Finding:
    """Return a finding that somebody must do something about."""
    return Finding(name=name, ok=False, says=says, fix=fix)


async def everything() -> AsyncIterator[Finding]:
    """Look at everything, in an order in which what comes first explains what comes later."""
    try:
        tx = await connect(settings.database_url, name="tf-doctor")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        fix = "is it running, and is DATABASE_URL right? `taskflow dev` starts one here"
        yield bad("postgresql", f"does not answer: {str(error) or type(error).__name__}", fix)
        tx = None
    if tx is not None:
        for finding in await postgres(tx):
            yield finding
    for finding in stores_of_redis():
        yield finding
    if tx is None:
        return
    try:
        yield await asyncio.to_thread(schema)
        yield await leader(tx)
        yield await workers(tx)
        yield await results(tx)
        yield await unknown_types(tx)
        yield await history(tx)
    except asyncpg.UndefinedTableError:
        yield bad("tables", "are missing", _MIGRATE)
    finally:
        await tx.close()


async def postgres(tx: Tx) -> list[Finding]:
    """Version, durability and clock of PostgreSQL."""
    version = int(await tx.fetchval("show server_version_num"))
    fsync, commit = await tx.fetchval("show fsync"), await tx.fetchval("show synchronous_commit")
    shown = f"{version // 10000}.{version % 10000}"
    found = [
        good("postgresql", f"{shown} answers")
        if version >= LEAST_POSTGRES
        else bad("postgresql", f"{shown} is too old", "use PostgreSQL 15 or newer"),
        good("durability", f"fsync = {fsync}, synchronous_commit = {commit}")
        if fsync == "on" and commit != "off"
        else bad(
            "durability",
            f"fsync = {fsync}, synchronous_commit = {commit}: a power cut can lose tasks that were accepted",
            "set both to on",
        ),
    ]
    before = clock.now()
    there = await tx.fetchval("select clock_timestamp()")
    after = clock.now()
    off = max((there - after).total_seconds(), (before - there).total_seconds(), 0.0)
    if off <= MOST_CLOCK_SECONDS:
        return [*found, good("clock", f"differs from PostgreSQL's by less than {max(off, 0.1):.1f} s")]
    fix = "run a time service (chrony, systemd-timesyncd) on both; delays and expiry of keys are off by as much"
    return [*found, bad("clock", f"differs from PostgreSQL's by {off:.1f} s", fix)]


def stores_of_redis() -> list[Finding]:
    """The two Redis servers; TaskFlow is correct without them, and slower."""
    if not settings.redis:
        return [good("redis", "switched off (TASKFLOW_REDIS): workers poll PostgreSQL")]
    found = []
    for level in ("high", "low"):
        name = f"redis {level}"
        try:
            client = redis_client.get_redis_client(level)
            server: Any = client.info("server")
            memory: Any = client.info("memory")
        except (redis_failure.RedisError, OSError, TaskFlowError) as error:
            found.append(_unusable(name, level, error))
            continue
        found.append(_redis(name, str(server["redis_version"]), str(memory.get("maxmemory_policy", "noeviction"))))
    return found


def _unusable(name: str, level: str, error: BaseException) -> Finding:
    reason = reason_of(error)
    if reason == "password":
        return bad(name, f"refuses our password: {error}", fix_of(reason, level))
    if reason == "unreachable":
        fix = f"is it running, and are REDIS_HOST_{level.upper()} and its port right? Meanwhile workers poll"
        return bad(name, f"does not answer: {error}", fix)
    return bad(name, f"refuses INFO: {error}", fix_of("permission", level))


def _redis(name: str, version: str, policy: str) -> Finding:
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_REDIS:
        return bad(name, f"{version} is too old", "use Redis 7.0 or newer")
    if policy != "noeviction":
        fix = "set maxmemory-policy noeviction: an evicted list is found again, but only by a scan"
        return bad(name, f"{version} answers, and evicts keys ({policy})", fix)
    return good(name, f"{version} answers")


def schema() -> Finding:
    """Whether the database has this code's schema, or a newer one."""
    if migrate.is_ready(settings.database_url):
        return good("schema", f"is at {migrate.current(settings.database_url)}")
    return bad("schema", f"is at {migrate.current(settings.database_url) or 'nothing'}, behind this code", _MIGRATE)


async def leader(tx: Tx) -> Finding:
    """Whether a scheduler leads: its lease is renewed while we look, or its lock in Redis is there."""
    epoch = await tx.fetchval("select max(epoch) from leader") or 0
    before = await _renewals(tx)
    end = clock.monotonic() + LEADER_SECONDS
    while clock.monotonic() < end:
        if await asyncio.to_thread(_lock_is_there) or await _renewals(tx) != before:
            return good("leader", f"a scheduler leads, epoch {epoch}")
        await clock.system.sleep(_STEP)
    fix = "start a scheduler: python -I -m services.scheduler.main (`taskflow dev` has one)"
    return bad("leader", "no scheduler leads: retries, delays, limits and rescues wait", fix)


async def _renewals(tx: Tx) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await tx.fetch("select name, holder, renewals from leases order by name")]


def _lock_is_there() -> bool:
    if not settings.redis:
        return False
    with suppress(redis_failure.RedisError, OSError, TaskFlowError):
        return bool(redis_client.get_redis().exists(_LEADER_KEY))
    return False


async def workers(tx: Tx) -> Finding:
    """Whether there are workers, and all of them beat."""
    lease = LEASE_BEATS * settings.heartbeat_interval_seconds
    rows = await tx.fetch(statement("workers_live"))
    if not rows:
        return bad("workers", "there is none: tasks are kept, and wait", _START)
    late = [row["name"] for row in rows if row["beat_age"] > lease]
    if late:
        fix = "the leader takes their tasks back within a lease; if it does not, look at the leader"
        return bad(
            "workers", f"{len(late)} of {len(rows)} have not been heard of for {lease:g} s: {', '.join(late)}", fix
        )
    return good("workers", f"{len(rows)} alive")


async def results(tx: Tx) -> Finding:
    """Whether workers hold finished results that PostgreSQL does not take."""
    rows = await tx.fetch(
        "select name, held_endings from workers where state <> 'dead' and held_endings > 0 order by held_endings desc"
    )
    if not rows:
        return good("results", "no worker holds a finished result back")
    number, named = sum(row["held_endings"] for row in rows), ", ".join(row["name"] for row in rows[:5])
    fix = (
        "read the log of such a worker for the error. When it names locked rows, end the transaction that has them: "
        "select pid, xact_start, query from pg_stat_activity where state like 'idle in transaction%'"
    )
    return bad("results", f"{len(rows)} workers hold {number} finished results for a minute or more: {named}", fix)


async def unknown_types(tx: Tx) -> Finding:
    """Whether tasks wait for a type that no living worker can run."""
    rows = await tx.fetch(
        """with known as (
               select unnest(sync_types || async_types) as type from workers where state <> 'dead'
           ), orphans as (
               select type from tasks
               where status in ('QUEUED', 'PENDING') and not exists (select from known where known.type = tasks.type)
               limit 10000
           )
           select type, count(*) as waiting from orphans group by type order by waiting desc, type limit 5"""
    )
    if not rows:
        return good("types", "every waiting task has a worker that knows it")
    named = ", ".join(f"{row['type']} ({row['waiting']})" for row in rows)
    return bad(
        "types", f"tasks wait that no worker knows: {named}", f"{_START}; or cancel them: taskflow task cancel ID"
    )


async def history(tx: Tx) -> Finding:
    """Whether the tasks that were submitted last are as their events say; bounded in tasks and in seconds."""
    try:
        async with tx.transaction(readonly=True):
            await tx.execute(
                f"set local statement_timeout = '{HISTORY_SECONDS}s'; set local enable_seqscan = off;"
                " set local enable_bitmapscan = off"
            )
            verified = await queue.verify_newest(tx, NEWEST_TASKS)
    except asyncpg.QueryCanceledError:
        return good("history", f"was not verified within {HISTORY_SECONDS} s; to verify it, run: taskflow verify")
    except asyncpg.InsufficientPrivilegeError:
        return good("history", "was not verified: this login may not read the events of tasks")
    if not verified.found:
        return good("history", f"the newest {verified.tasks} tasks are as their events say")
    wrong = sorted({str(one.id) for one in verified.found})
    named = ", ".join(wrong[:5]) + (", …" if len(wrong) > 5 else "")  # noqa: PLR2004 - as many as fit on a line
    return bad(
        "history", f"{len(wrong)} tasks contradict their events: {named}", "for all of them, run: taskflow verify"
    )
