"""What PostgreSQL does with a statement: which rows of `tasks` it visits, and by which index.

The plan is the one that a worker's session keeps: generic, under `pool.PINNED`, made once and used for days.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from core.sql import WORKER_FUNCTIONS, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FAILED_PLAN_MS = 30_000  # a plan that walks the whole table is cut off here
FUNCTIONS = {call(name): name for name in WORKER_FUNCTIONS}
PLACE = "ctid"  # rows found by their place in the table
# PostgreSQL tells the plans of the statements inside functions in this way only.
EXPLAINED = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_analyze = on;
set auto_explain.log_timing = off;
set auto_explain.log_format = json;
set auto_explain.log_level = notice
"""


@dataclass(frozen=True, slots=True)
class Visit:
    """One scan of `tasks` inside a plan: `index` None is a sequential scan, else its index or PLACE.

    `rows` is what it looked at.
    """

    index: str | None
    rows: float


@dataclass
class Spy:
    """A transaction that remembers what the verbs sent through it."""

    tx: Any
    seen: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    async def fetch(self, text: str, *args: Any) -> Any:
        self.seen.append((text, args))
        return await self.tx.fetch(text, *args)

    async def execute(self, text: str, *args: Any) -> Any:
        self.seen.append((text, args))
        return await self.tx.execute(text, *args)

    async def fetchval(self, text: str, *args: Any) -> Any:
        self.seen.append((text, args))
        return await self.tx.fetchval(text, *args)

    async def fetchrow(self, text: str, *args: Any) -> Any:
        self.seen.append((text, args))
        return await self.tx.fetchrow(text, *args)


@asynccontextmanager
async def rolled_back(connection: Any) -> AsyncIterator[Any]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()


class Session:
    """A session with its own prepared statements, whose plans stay as they were first made."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._names: dict[str, tuple[str, list[str]]] = {}

    async def prepare(self, text: str) -> tuple[str, list[str]]:
        """Prepare a statement and have its generic plan made now."""
        if text in FUNCTIONS:
            await self._call_once(text)
            return "", []
        if text not in self._names:
            types = [kind.name for kind in (await self.connection.prepare(text)).get_parameters()]
            name = f"guarded_{len(self._names)}"
            head = f"prepare {name} ({', '.join(types)})" if types else f"prepare {name}"
            await self.connection.execute(f"{head} as {text}")
            self._names[text] = name, types
            await self.connection.execute(f"explain {_execute(name, types, [None] * len(types))}")
        return self._names[text]

    async def _call_once(self, text: str) -> None:
        """Have a function's plan made by a call that finds nothing; what it writes is undone."""
        asked = (await self.connection.prepare(text)).get_parameters()
        async with rolled_back(self.connection):
            with suppress(asyncpg.NotNullViolationError):
                await self.connection.fetch(text, *([] if kind.kind == "array" else None for kind in asked))

    async def visits(self, text: str, args: tuple[Any, ...]) -> list[Visit]:
        """Run the statement for real, and tell what its plan did to `tasks`."""
        if text in FUNCTIONS:
            return await self._visits_within(text, args)
        name, types = await self.prepare(text)
        plan = await self.connection.fetchval(
            f"explain (analyze, timing off, format json) {_execute(name, types, list(args))}"
        )
        return list(_visits(json.loads(plan)[0]["Plan"]))

    async def _visits_within(self, text: str, args: tuple[Any, ...]) -> list[Visit]:
        """Call a function, and read the plan of the statement inside it, as this session keeps it."""
        told: list[str] = []

        def hear(_connection: Any, message: Any) -> None:
            told.append(message.message)

        await self.connection.execute(EXPLAINED)
        self.connection.add_log_listener(hear)
        try:
            await self.connection.fetch(text, *args)
        finally:
            self.connection.remove_log_listener(hear)
            await self.connection.execute("set auto_explain.log_min_duration = -1")
        plans = [json.loads(each[each.index("{") :]) for each in told if "plan:" in each]
        # The outermost one is that of the call itself.
        [within] = [plan for plan in plans if "taskflow_" not in plan["Query Text"]]
        return list(_visits(within["Plan"]))


def _execute(name: str, types: list[str], args: list[Any]) -> str:
    shown = ", ".join(f"{_literal(value)}::{kind}" for value, kind in zip(args, types, strict=True))
    return f"execute {name} ({shown})" if types else f"execute {name}"


def _literal(value: Any) -> str:
    match value:
        case None:
            return "null"
        case list() | tuple():
            return "array[" + ", ".join(_literal(item) for item in value) + "]"
        case bytes():
            return f"'\\x{value.hex()}'"
        case bool() | int() | float() | UUID() | datetime() | str():
            return "'" + str(value).replace("'", "''") + "'"
    raise TypeError(type(value))


def _visits(node: dict[str, Any]) -> Iterator[Visit]:
    rows = sum(node.get(key, 0) for key in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"))
    visited = rows * node["Actual Loops"]
    if node["Node Type"] == "Bitmap Index Scan" and node["Index Name"].startswith("tasks_"):
        yield Visit(node["Index Name"], visited)
    elif node.get("Relation Name") == "tasks" and node["Node Type"] not in {"Bitmap Heap Scan", "ModifyTable"}:
        yield Visit(PLACE if node["Node Type"] == "Tid Scan" else node.get("Index Name"), visited)
    for child in node.get("Plans", ()):
        yield from _visits(child)
