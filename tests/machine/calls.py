"""Calls in flight: each verb runs in a transaction of its own, on a connection of its own, and meets its fate.

A call may stay open before its COMMIT while others go on, wait for the lock of an open one, or end with an answer
that nobody hears. Nothing here waits for time to pass: `settle` returns when every call has ended, is held open, or
waits for one that is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from core.errors import Deposed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONNECTIONS = 6
_LOOK_SECONDS = 0.002
_MOST_LOOKS = 5000


class Fate(StrEnum):
    """What becomes of a call after its statements went through."""

    ACK = "committed and answered"
    HOLD = "left open"
    LOST = "committed, the answer lost"
    UNDONE = "rolled back, which nobody knows"
    FAIL = "rolled back and refused"


COMMITS = {Fate.ACK, Fate.LOST}
UNKNOWN = {Fate.LOST, Fate.UNDONE}


def _nothing(*_: Any) -> None: ...


@dataclass(eq=False)
class Call:
    """One verb on its way. `told` hears an answer, `unknown` (answer, committed) that there was none."""

    name: str
    verb: Callable[[Any], Awaitable[Any]]
    fate: Fate
    told: Callable[[Any], None] = _nothing
    unknown: Callable[[Any, bool], None] = _nothing
    deposed: Callable[[], None] | None = None
    connection: Any = None
    pid: int = 0
    answer: Any = None
    held: bool = False
    done: bool = False
    error: Exception | None = None
    rested: asyncio.Event = field(default_factory=asyncio.Event)
    decided: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            self.answer = await self.verb(self.connection)
        except Exception as error:  # noqa: BLE001 - settle() decides what it means
            self.error = error
            await transaction.rollback()
        else:
            if self.fate is Fate.HOLD:
                self.held = True
                self.rested.set()
                await self.decided.wait()
                self.held = False
            await (transaction.commit() if self.fate in COMMITS else transaction.rollback())
        self.done = True
        self.rested.set()


class Line:
    """All calls in flight."""

    def __init__(self, connections: list[Any], observer: Any) -> None:
        self._free = list(connections)
        self._observer = observer
        self.calls: list[Call] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        return not self._free

    @property
    def open(self) -> list[Call]:
        """The calls that wait for someone to decide on them."""
        return [call for call in self.calls if call.held]

    def start(self, call: Call) -> None:
        call.connection = self._free.pop()
        call.pid = call.connection.get_server_pid()
        self.calls.append(call)
        task = asyncio.get_running_loop().create_task(call.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def decide(self, call: Call, fate: Fate) -> None:
        call.fate = fate
        call.rested.clear()
        call.decided.set()

    async def settle(self) -> None:
        """Go on until nothing moves any more, and let the callers hear what came out."""
        for _ in range(_MOST_LOOKS):
            busy = [call for call in self.calls if not call.rested.is_set()]
            if not busy or await self._stuck(busy):
                break
        else:
            raise AssertionError(f"these calls neither end nor wait: {[call.name for call in busy]}")
        for call in [call for call in self.calls if call.done]:
            self.calls.remove(call)
            self._free.append(call.connection)
            _conclude(call)

    async def _stuck(self, busy: list[Call]) -> bool:
        waits = [asyncio.ensure_future(call.rested.wait()) for call in busy]
        done, pending = await asyncio.wait(waits, timeout=_LOOK_SECONDS)
        for wait in pending:
            wait.cancel()
        if done:
            return False
        rows = await self._observer.fetch(
            "select pid, pg_blocking_pids(pid) as blockers from unnest($1::int[]) as pid", [call.pid for call in busy]
        )
        blocked = {row["pid"]: set(row["blockers"]) for row in rows if row["blockers"]}
        still = blocked.keys() | {call.pid for call in self.open}
        quiet = all(call.pid in blocked and blocked[call.pid] <= still for call in busy)
        return quiet and not any(call.rested.is_set() for call in busy)


def _conclude(call: Call) -> None:
    if call.error is not None:
        if isinstance(call.error, Deposed) and call.deposed is not None:
            call.deposed()
            return
        raise call.error
    if call.fate is Fate.ACK:
        call.told(call.answer)
    elif call.fate in UNKNOWN:
        call.unknown(call.answer, call.fate in COMMITS)
