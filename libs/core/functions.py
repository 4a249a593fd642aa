"""The worker functions in a database: made of core/sql beside the migrations, dropped when no worker needs them.

They run with the rights of their owner, the role that migrates. A worker's role may call them and needs no other
right. docs/decisions/0019 says why.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import Connection, text

from core.pool import Database, Tx
from core.sql import TEMPLATE, WORKER_FUNCTIONS, body, digest, function_name, statement

KEPT_SECONDS: Final = 86400.0  # how long a set of functions outlives its last worker
LOCK: Final = (0x7466, 10)  # of all who change rights or functions

# Functions of the sets that are recorded, whoever made them.
_LISTED: Final = """
select pg_proc.oid::regprocedure::text as signature, function_sets.digest
from pg_proc join function_sets on pg_proc.proname like 'taskflow\\_%\\_' || function_sets.digest
where pg_proc.pronamespace = 'public'::regnamespace
order by 1
"""
_UNUSED: Final = """
select digest from function_sets
where digest <> $1 and made_at < clock_timestamp() - make_interval(secs => $2)
  and not exists (
    select from workers
    where workers.functions = function_sets.digest
      and (workers.state <> 'dead' or workers.beat_at > clock_timestamp() - make_interval(secs => $2)))
"""


async def create(tx: Tx, name: str, source: str, suffix: str) -> str:
    """Make a function of a statement's text; return its signature.

    PostgreSQL is asked for the types of the parameters and of the columns, so nobody writes them down twice.
    """
    prepared = await tx.prepare(source)
    parameters = ", ".join(_typed(kind) for kind in prepared.get_parameters())
    columns = ", ".join(f'"{column.name}" {_typed(column.type)}' for column in prepared.get_attributes())
    full = function_name(name, suffix)
    await tx.execute(
        TEMPLATE.format(
            name=full,
            parameters=parameters,
            answer=f"table ({columns})" if columns else "void",
            give="return query\n" if columns else "",
            body=body(source),
        )
    )
    signature = f"public.{full}({parameters})"
    await tx.execute(f"revoke all on function {signature} from public")
    return signature


def _typed(kind: Any) -> str:
    schema = "" if kind.schema == "pg_catalog" else f'"{kind.schema}".'
    return f"{schema}{kind.name}"


def make(url: str, *, role: str) -> None:
    """Make this code's functions in the database at `url`, let `role` call them, and drop those nobody needs.

    Safe to repeat, and from several processes at once. The login at `url` must own the tables, and the schema must be
    at this code's revision or a later one.
    """
    asyncio.run(_make(url, role))


def remove(url: str) -> None:
    """Drop this code's functions: the schema is about to become older than they are."""
    asyncio.run(_remove(url))


@asynccontextmanager
async def _locked(url: str) -> AsyncIterator[Tx]:
    """Open a transaction that is alone in changing functions and rights."""
    database = Database(url, name="tf-functions", size=1, hot=False, lock_timeout="10s")
    async with database, database.begin() as tx:
        await tx.execute("select pg_advisory_xact_lock($1, $2)", *LOCK)
        yield tx


async def _make(url: str, role: str) -> None:
    async with _locked(url) as tx:
        await _create_missing(tx, role)
        for old in await tx.fetch(_UNUSED, digest(), KEPT_SECONDS):
            await _drop(tx, old["digest"])


async def _create_missing(tx: Tx, role: str) -> None:
    await tx.execute(
        "insert into function_sets (digest) values ($1) on conflict (digest) do update set made_at = excluded.made_at",
        digest(),
    )
    there = {row["signature"].partition("(")[0] for row in await tx.fetch(_LISTED) if row["digest"] == digest()}
    known = await tx.fetchval("select exists (select from pg_roles where rolname = $1)", role)
    for name in WORKER_FUNCTIONS:
        if function_name(name) not in there:
            signature = await create(tx, name, statement(name), digest())
            if known:
                await tx.execute(f"grant execute on function {signature} to {role}")


async def _remove(url: str) -> None:
    async with _locked(url) as tx:
        if await tx.fetchval("select to_regclass('public.function_sets') is not null"):
            await _drop(tx, digest())


async def _drop(tx: Tx, gone: str) -> None:
    for row in await tx.fetch(_LISTED):
        if row["digest"] == gone:
            await tx.execute(f"drop function {row['signature']}")
    await tx.execute("delete from function_sets where digest = $1", gone)


def signatures(connection: Connection) -> Sequence[str]:
    """Return the signatures of all worker functions there are, of whatever version."""
    return [row.signature for row in connection.execute(text(_LISTED))]


def are_there(connection: Connection) -> bool:
    """Tell whether all functions of this code exist. They are made last, so the schema is no older than this code."""
    names = [function_name(name) for name in WORKER_FUNCTIONS]
    number = connection.scalar(
        text(
            "select count(*) from pg_catalog.pg_proc"
            " where pronamespace = 'public'::regnamespace and proname = any (:names)"
        ),
        {"names": names},
    )
    return bool(number == len(names))
