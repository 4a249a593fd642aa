"""A lane's reading of references: what a worker may claim, in order, HIGH first.

A reference that was read is gone from Redis, and nobody waits for it to be acknowledged: it is a hint, the claim
decides, and what was lost on the way is QUEUED in PostgreSQL, where the feeder finds it again (cursors.py).
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from redis import exceptions as failure

from core import clock
from core.domain.ordering import URGENCY, Lane, PriorityType, digest, list_key, priority_of
from core.lua import load
from core.pool import uuid_of
from core.redis_client import RedisDown, Server
from core.redis_errors import reason_of

_READ = load("read")
_PAUSE_SECONDS = 0.2  # after a blocking read that was refused, so that no loop runs hot
_ID_BYTES = 16


class Ref(NamedTuple):
    """A hint that a task may be claimed. `list` says where it is to be given back."""

    id: UUID
    list: str


class Seat:
    """One connection on which one blocking read waits; it is never cut short, only woken, so that nothing is lost."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Any = None
        self._number = 0
        self._waiting: asyncio.Task[list[Ref]] | None = None

    def start(self, keys: Sequence[str], count: int, block_ms: int) -> "asyncio.Task[list[Ref]]":
        """Begin to wait, or go on waiting when an earlier read was abandoned by its caller."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._block(keys, count, block_ms))
        return self._waiting

    def leave(self) -> None:
        """Forget a wait that is over, whose result was taken."""
        if self._waiting is not None and self._waiting.done():
            self._waiting = None

    async def stop(self) -> list[Ref]:
        """Wake the blocking read, if there is one, and return what it had already been given."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return []
        if not waiting.done():
            try:
                await self._server.call(lambda client: client.client_unblock(self._number))
                await asyncio.wait({waiting}, timeout=1.0)
            except (RedisDown, failure.RedisError):
                pass
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
        return [] if waiting.cancelled() or waiting.exception() else waiting.result()

    async def aclose(self) -> None:
        """Stop waiting and hang up; what was given meanwhile is hinted to others again."""
        await self.stop()
        await self._hang_up()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(failure.RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def _block(self, keys: Sequence[str], count: int, block_ms: int) -> list[Ref]:
        try:
            if self._connection is None:
                await self._server.call(self._connect)
            await self._connection.send_command("BLMPOP", block_ms / 1000, len(keys), *keys, "LEFT", "COUNT", count)
            answer = await self._connection.read_response(timeout=block_ms / 1000 + 1)
        except RedisDown:
            return []
        except (failure.RedisError, OSError, TimeoutError) as error:
            self._server.failed(error)
            if isinstance(error, failure.ResponseError) and reason_of(error) != "read_only":
                await clock.system.sleep(_PAUSE_SECONDS)  # a key of another type, or no right to it
            else:
                await self._hang_up()
            return []
        except asyncio.CancelledError:
            await self._hang_up()  # its answer would be taken for the next one's
            raise
        key, ids = answer or (b"", ())
        return [Ref(uuid_of(one), key.decode()) for one in ids if len(one) == _ID_BYTES]

    async def _connect(self, client: Any) -> None:
        connection = client.connection_pool.make_connection()
        await connection.connect()
        await connection.send_command("CLIENT", "ID")
        self._number = int(await connection.read_response())
        self._connection = connection


class Reader:
    """One lane's eyes: made once for a worker id and a lane, asked again and again."""

    def __init__(
        self, high: Server, low: Server, *, worker: UUID, lane: Lane, queues: Sequence[str], types: Iterable[str]
    ) -> None:
        self.digest = digest(types)
        self._field = f"{worker}:{lane.value}"
        self._queues = list(queues)
        self._servers = [high] if high is low else [high, low]
        self._seats = {server.level: Seat(server) for server in self._servers}
        self.led = True  # whether somebody fills the lists, by the last read; else poll PostgreSQL as well
        self._turn = 0
        self._spill: list[Ref] = []
        self._rising: asyncio.Task[None] | None = None

    @property
    def degraded(self) -> bool:
        """Whether a server did not work just now: then poll PostgreSQL as well, about once a second."""
        return any(not server.usable for server in self._servers)

    async def read(self, *, count: int, want: int, block_ms: int = 1000) -> list[Ref]:
        """Say that this lane wants `want` references, and return up to `count` of them or a few more.

        With nothing there it waits up to `block_ms`. References beyond what the caller can use now are the caller's
        to keep. Raises RedisDown when no server can be asked; one of two being down only shows in `degraded`.
        """
        await self._rise()
        spilt, self._spill = self._spill, []
        try:
            found = spilt + await self._take(max(count - len(spilt), 0), want)
        except BaseException:
            self._spill = spilt + self._spill  # the next read has them
            raise
        if found or block_ms <= 0 or count <= 0:
            return found
        return await self._wait(count, block_ms)

    async def give_back(self, refs: Sequence[Ref]) -> None:
        """Put references back where they were, for others to read first. Never raises."""
        grouped: dict[str, list[bytes]] = defaultdict(list)
        for ref in refs:
            grouped[ref.list].append(ref.id.bytes)
        for server in self._servers:
            mine = {key: ids for key, ids in grouped.items() if self._home(priority_of(key)) is server}
            if mine:
                with suppress(RedisDown, failure.RedisError):
                    await server.call(partial(_push_first, mine))

    async def report(self, want: int) -> None:
        """Say how many references this lane wants, without reading: 0 when its last slot is taken. Never raises."""
        with suppress(RedisDown, failure.RedisError):
            await self._servers[-1].call(lambda client: client.hset("tf:free", self._field, self._said(want)))

    async def aclose(self) -> None:
        """Stop waiting, give back what was not asked for, say that nothing is wanted any more."""
        await self._rise()
        await self.give_back(self._spill)
        for seat in self._seats.values():
            await seat.aclose()
        with suppress(RedisDown, failure.RedisError):
            await self._servers[-1].call(lambda client: client.hdel("tf:free", self._field))

    def _said(self, want: int) -> str:
        # The counter tells the leader an old word from a new one: a lane that is stuck or cut off wants nothing.
        self._turn += 1
        return f"{want}:{self._turn}"

    def _lists(self, server: Server) -> list[str]:
        """Return the lists on `server`: by priority, the queues of one priority in turn."""
        first = self._turn % max(len(self._queues), 1)
        queues = self._queues[first:] + self._queues[:first]
        return [
            list_key(queue, priority, self.digest)
            for priority in URGENCY
            if self._home(priority) is server
            for queue in queues
        ]

    def _home(self, priority: PriorityType) -> Server:
        return self._servers[0] if priority is PriorityType.HIGH else self._servers[-1]

    async def _take(self, count: int, want: int) -> list[Ref]:
        found: list[Ref] = []
        broken: RedisDown | None = None
        for server in self._servers:
            said = self._said(want) if server is self._servers[-1] else ""
            try:
                found += await self._ask(server, count - len(found), said)
            except RedisDown as error:
                broken = error
        if broken is not None and not found and not any(server.usable for server in self._servers):
            raise broken
        return found

    async def _ask(self, server: Server, count: int, said: str) -> list[Ref]:
        if count <= 0 and not said:
            return []
        keys = self._lists(server) if count > 0 else []
        answer = await server.run(_READ, keys, [count, self._field if said else "", said])
        if said:
            self.led = bool(answer[0])
        found: list[Ref] = []
        for at in range(1, len(answer), 2):
            key, ids = keys[answer[at] - 1], answer[at + 1]
            found += [Ref(uuid_of(ids[row : row + _ID_BYTES]), key) for row in range(0, len(ids), _ID_BYTES)]
        return found

    async def _wait(self, count: int, block_ms: int) -> list[Ref]:
        """Wait on all servers until one has something; both waits end by themselves after `block_ms`."""
        pending = {
            self._seats[server.level].start(self._lists(server), count, block_ms)
            for server in self._servers
            if server.usable
        }
        found: list[Ref] = []
        while pending and not found:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                found += [] if task.cancelled() else task.result()  # by `stop`, when it could not be woken
        for seat in self._seats.values():
            seat.leave()
        if pending:  # the other server's wait is ended while the caller is at work already
            self._rising = asyncio.create_task(self._stop_all())
        return found

    async def _rise(self) -> None:
        """End the waits of an earlier read; what they were given meanwhile is for the next one."""
        if self._rising is not None:
            await asyncio.wait({self._rising})
            self._rising = None
        await self._stop_all()

    async def _stop_all(self) -> None:
        for seat in self._seats.values():
            given = await seat.stop()
            self._spill += given


async def _push_first(lists: dict[str, list[bytes]], client: Any) -> None:
    pipe = client.pipeline(transaction=False)
    for key, ids in lists.items():
        pipe.lpush(key, *reversed(ids))
    await pipe.execute()
