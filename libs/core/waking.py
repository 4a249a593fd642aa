"""The push that brings a queue's first worker: who makes a task ready says so, and the operator hears it.

Best effort at both ends: whatever is lost here is found by the operator's next count.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from core import clock as clocks
from core import failover, telemetry
from core import queue_manager as queue
from core.domain.lifecycle import TaskStatus
from core.errors import Unavailable
from core.pool import Database, heed_cancel, unavailable
from core.sessions import demoted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from core.domain.task import Submission, Submitted
    from core.pool import Tx

VIEW_SECONDS: Final = 2.0  # how old the knowledge of who is served may be
AGAIN_SECONDS: Final = 1.0  # a queue is named no more often than this by one process
PING_SECONDS: Final = 20.0  # a connection on which nothing was heard for so long is tried
LEAST_PAUSE, MOST_PAUSE = 0.2, 5.0
_MOST_NAMES: Final = 10_000
log = telemetry.get_logger("waking")


class Waker:
    """Names queues that have tasks and no worker. One for a process or a term; a queue with workers costs nothing."""

    def __init__(self, db: Database, clock: clocks.Clock = clocks.system) -> None:
        """Ask and tell over `db`."""
        self._db = db
        self._clock = clock
        self._served: frozenset[str] = frozenset()
        self._looked: float | None = None
        self._told: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._runner: asyncio.Task[None] | None = None

    def add(self, queues: Iterable[str]) -> None:
        """Tell of these queues soon, without keeping the caller."""
        if len(self._waiting) < _MOST_NAMES:
            self._waiting.update(queues)
        if self._waiting and self._runner is None:
            self._runner = asyncio.create_task(self._run())

    def submitted(self, rows: Iterable[tuple[Submission, Submitted]]) -> None:
        """Tell of the queues of new tasks that may run at once, or as soon as their gate lets them."""
        self.add({asked.queue for asked, born in rows if born.gated or born.status is TaskStatus.QUEUED})

    async def tell(self, queues: Iterable[str]) -> None:
        """Tell of those of these queues that nobody serves, at most once a second each. Never raises."""
        now = self._clock.monotonic()
        names = {name for name in queues if now - self._told.get(name, float("-inf")) >= AGAIN_SECONDS}
        if self._fresh(now):
            names -= self._served
        if not names:
            return
        try:
            async with self._db.connection() as tx:
                if not self._fresh(now):
                    self._served, self._looked = await queue.served_queues(tx), now
                if names := names - self._served:
                    await queue.notify_wake(tx, sorted(names))
        except Unavailable:
            return
        except Exception:
            log.exception("the operator was not told, it will find out by counting", queues=sorted(names))
            return
        if len(self._told) > _MOST_NAMES:
            self._told.clear()
        self._told.update(dict.fromkeys(names, now))

    async def close(self) -> None:
        """Wait until everything was told."""
        if self._runner is not None:
            await asyncio.wait([self._runner])

    def _fresh(self, now: float) -> bool:
        return self._looked is not None and now - self._looked < VIEW_SECONDS

    async def _run(self) -> None:
        try:
            while self._waiting:
                names, self._waiting = self._waiting, set()
                await self.tell(names)
        finally:
            self._runner = None


async def listen(
    url: str, channel: str = queue.WAKE_CHANNEL, *, clock: clocks.Clock = clocks.system
) -> AsyncGenerator[str]:
    """Yield what is said on a channel, for ever: iterate inside `contextlib.aclosing`.

    The empty string comes first, and after every time that the connection was lost: until now nothing was heard, so
    look at everything. What is said faster than it is taken comes once.
    """
    pause = 0.0
    while True:
        heed_cancel()
        try:
            connection = await Database(url, name="tf-wake", command_seconds=5.0).own_connection()
        except Unavailable as away:
            if not pause:
                log.warning("nothing is heard of PostgreSQL, trying on", channel=channel, error=str(away))
            pause = min(max(LEAST_PAUSE, pause * 2), MOST_PAUSE)
            await clock.sleep(pause * (0.5 + clock.rand() / 2))
            continue
        opened = clocks.monotonic()
        ear = _Ear()
        try:
            connection.add_termination_listener(ear.lost)
            await connection.add_listener(channel, ear.heard)
            pause = 0.0
            yield ""
            while not connection.is_closed():
                if not await ear.wait(PING_SECONDS):
                    await connection.execute("select 1")
                if demoted(connection) or failover.postgres.outdated(opened):
                    break  # nobody speaks on a server that takes no writes
                for said in ear.take():
                    yield said
        except Exception as error:
            if not unavailable(error):
                raise
        finally:
            connection.terminate()  # there is nothing on it to end in order


class _Ear:
    """What was heard on a connection and not yet taken."""

    def __init__(self) -> None:
        self._said: dict[str, None] = {}
        self._news = asyncio.Event()

    def heard(self, _connection: Tx, _pid: int, _channel: str, said: str) -> None:
        self._said[said] = None
        self._news.set()

    def lost(self, _connection: Tx) -> None:
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Return whether there was news in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[str]:
        self._news.clear()
        said, self._said = list(self._said), {}
        return said
