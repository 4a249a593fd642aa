"""References: hints in Redis that a task may be claimed. Used by the worker, the API and the leader.

PostgreSQL knows which tasks are QUEUED; what is here only makes them start in order and at once. It may be lost,
doubled, late or forged: a claim decides. What the keys in Redis hold is told by the scripts in core/lua.

worker:  `reader = refs.reader(worker=id, lane=Lane.SYNC, queues=[...], types=[...])`, then
         `found = await reader.read(count=free, want=want)`; `await reader.report(0)` when full;
         `await reader.give_back(refs)`; poll PostgreSQL as well while `reader.degraded`, on RedisDown,
         and while not `reader.led`;
         `async for cancel in refs.cancels(id): ...`
API:     after the commit `await refs.hint_submitted(zip(submissions, submitted))`, `await refs.hint_moved(moved)`
leader:  see core/steering.py
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import UUID

import msgspec
from redis import exceptions as failure

from core import clock as clocks
from core.config import settings
from core.domain.credits import Offer
from core.domain.ordering import Lane
from core.hinting import Hinting, worker_channel
from core.reading import Reader, Ref
from core.redis_client import COMMAND_SECONDS, RedisDown, new_async_client, servers
from core.steering import Snapshot, Steering, Want

__all__ = ["CancelAsk", "Offer", "Reader", "RedisDown", "Ref", "References", "Snapshot", "Want"]

_LISTEN_SECONDS = 5.0
_AGAIN_SECONDS = 1.0


class CancelAsk(NamedTuple):
    """Someone asked a worker to stop tasks; with `force` they are over already, and only to be killed."""

    ids: list[UUID]
    force: bool


class References(Hinting, Steering):
    """Both Redis servers, as far as references go. An async context manager that starts without a server."""

    def __init__(self, *, seconds: float = COMMAND_SECONDS, clock: clocks.Clock = clocks.system) -> None:
        """Take the longest that a call may wait: 0.2 s in an API, more where nobody waits for an answer."""
        self.clock = clock
        self.high, self.low = servers(seconds=seconds, monotonic=clock.monotonic)

    async def __aenter__(self) -> Self:
        """Connect to nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self.high.aclose()
        await self.low.aclose()
        if self._waker is not None:
            await self._waker.aclose()

    @property
    def off(self) -> bool:
        """Whether TASKFLOW_REDIS=off said to go without."""
        return not settings.redis

    @property
    def degraded(self) -> bool:
        """Whether one of the servers did not work just now."""
        return not (self.high.usable and self.low.usable)

    def reader(self, *, worker: UUID, lane: Lane, queues: Sequence[str], types: Iterable[str]) -> Reader:
        """Return the reader of one lane of a worker; a worker with a new id takes new ones."""
        return Reader(self.high, self.low, worker=worker, lane=lane, queues=queues, types=types)

    async def cancels(self, worker: UUID) -> AsyncGenerator[CancelAsk]:
        """Yield what a worker is asked to stop, for as long as it lives; without Redis its beats tell it."""
        while True:
            with suppress(failure.RedisError, RedisDown, OSError):
                async for message in self._listen(worker):
                    with suppress(msgspec.DecodeError, KeyError, TypeError, ValueError):
                        asked: Any = msgspec.msgpack.decode(message)
                        yield CancelAsk([UUID(bytes=one) for one in asked["cancel"]], bool(asked["force"]))
            await self.clock.sleep(_AGAIN_SECONDS)

    async def _listen(self, worker: UUID) -> AsyncIterator[bytes]:
        if not settings.redis:
            message = "Redis is switched off"
            raise RedisDown(message)
        async with new_async_client("low", _LISTEN_SECONDS * 2) as client, client.pubsub() as channel:
            opened = self.clock.monotonic()
            await channel.subscribe(worker_channel(worker))
            while not self.low.failovers.outdated(opened):  # nobody speaks on a former primary
                heard = await channel.get_message(ignore_subscribe_messages=True, timeout=_LISTEN_SECONDS)
                if heard is not None:
                    yield heard["data"]
