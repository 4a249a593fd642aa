"""Who leads. An election makes takeovers rare and quick; the epoch in PostgreSQL makes them safe.

Chosen -> the next epoch -> the lock in Redis that carries it. Losing any of these to another means stepping down at
once; not reaching the election or the lock means nothing, as long as the epoch is one's own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol
from uuid import UUID

from redis import exceptions as failure

from core import clock as clocks
from core import queue_manager as queue
from core import telemetry
from core.errors import Deposed, Unavailable
from core.lua import load
from core.pool import Database, Tx, heed_cancel
from core.redis_client import RedisDown, Server
from core.verbs import electing

LEADER_SESSIONS = {queue.LEADER: "tf-leader/", queue.OPERATOR: "tf-operator-leader/"}
DURATION = 6.0  # a lease that was not renewed for so long, on the candidate's own clock, may be taken
RENEW_DEADLINE = 4.0  # one attempt to renew takes no longer
RETRY = 1.0
PATIENCE = 5.0  # an election outside PostgreSQL is given back when that has not answered its leader for so long
_LOOK_SECONDS = 2.0
_LOCK, _UNLOCK = load("lock"), load("unlock")
_LOCK_KEY = "tf:leader"
log = telemetry.get_logger("leadership")


class Election(Protocol):
    """Chooses one of several candidates, most of the time: PostgresLease, or KubernetesLease."""

    async def campaign(self) -> None:
        """Come back when chosen; errors of the service are waited out."""
        ...

    async def renew(self) -> bool:
        """Stay chosen; False when another was. Raises Unavailable when nobody can tell."""
        ...

    async def release(self) -> None:
        """Let the next one have it at once. Never raises."""
        ...


class PostgresLease:
    """A row in PostgreSQL, by client-go's algorithm: only a counter that one watches oneself says anything."""

    def __init__(
        self,
        db: Database,
        holder: UUID,
        *,
        name: str = queue.LEADER,
        clock: clocks.Clock = clocks.system,
        duration: float = DURATION,
    ) -> None:
        self._db = db
        self._name = name
        self._holder = holder
        self._clock = clock
        self._duration = duration
        self._seen: electing.LeaseRow | None = None
        self._since = 0.0

    async def campaign(self) -> None:
        while not await self.attempt():
            heed_cancel()
            # Jitter, so that two candidates do not ask in step for ever.
            await self._clock.sleep(RETRY * (0.9 + 0.2 * self._clock.rand()))

    async def attempt(self) -> bool:
        """Look once, and take the lease if it is free."""
        try:
            async with asyncio.timeout(RENEW_DEADLINE), self._db.connection() as tx:
                found = await electing.read_lease(tx, self._name)
                if not self._free(found):
                    return False
                taken = await electing.take_lease(tx, self._name, self._holder, found.renewals if found else 0)
        except (Unavailable, TimeoutError):
            return False
        self._seen = None
        return taken

    def _free(self, found: electing.LeaseRow | None) -> bool:
        now = self._clock.monotonic()
        if found is None or found.released or found.holder == self._holder:
            return True
        if found != self._seen:
            self._seen, self._since = found, now
        return now - self._since >= self._duration

    async def renew(self) -> bool:
        try:
            async with asyncio.timeout(RENEW_DEADLINE), self._db.connection() as tx:
                return await electing.renew_lease(tx, self._name, self._holder)
        except TimeoutError as slow:
            message = "PostgreSQL did not answer in time"
            raise Unavailable(message) from slow

    async def release(self) -> None:
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(RENEW_DEADLINE), self._db.connection() as tx:
                await electing.release_lease(tx, self._name, self._holder)


class RedisLock:
    """The epoch, written where other systems can see it. Redis may lose it: then it is written again."""

    def __init__(self, server: Server, holder: UUID, *, duration: float = DURATION) -> None:
        self._server = server
        self._holder = holder
        self._ttl = int(duration * 1000)

    async def hold(self, epoch: int) -> None:
        """Take or renew it. Raises Deposed when a higher epoch has it; unreachable is no reason to stop."""
        with suppress(RedisDown, failure.RedisError):
            held = await self._server.run(_LOCK, [_LOCK_KEY], [epoch, str(self._holder), self._ttl])
            if held:
                message = f"epoch {epoch} leads no more, the lock says {held.decode()}"
                raise Deposed(message)

    async def release(self, epoch: int) -> None:
        """Give it back if it is ours. Never raises."""
        with suppress(RedisDown, failure.RedisError):
            await self._server.run(_UNLOCK, [_LOCK_KEY], [epoch, str(self._holder)])


class Term:
    """One time of leading: an epoch, and the connections that carry its name."""

    def __init__(self, epoch: int, db: Database, name: str = queue.LEADER) -> None:
        self.epoch = epoch
        self.db = db
        self._name = name

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        """Open a leader's transaction: it holds off a takeover, or finds that one has happened. Raises Deposed."""
        async with self.db.begin() as tx:
            await queue.guard(tx, self.epoch, self._name)
            yield tx


class Leadership:
    """A candidate: stands by until chosen, leads until another does."""

    def __init__(
        self,
        url: str,
        holder: UUID,
        *,
        db: Database,
        election: Election,
        lock: RedisLock | None = None,
        name: str = queue.LEADER,
        patience: float | None = None,
        clock: clocks.Clock = clocks.system,
        size: int = 6,
    ) -> None:
        """Take the election, and `db`, whose sessions have a short `statement_timeout`, for taking the epoch.

        `name` is what is led: scheduler or operator, each with epochs of its own. `patience` is how many seconds
        PostgreSQL may be away before an election that is not held in PostgreSQL is given back: another candidate may
        reach it. None leads on.
        """
        self._url, self._db, self._size = url, db, size
        self._holder, self._clock = holder, clock
        self._election, self._lock = election, lock
        self._name, self._patience = name, patience
        self._answered = 0.0  # when PostgreSQL last did
        self.unreachable = False  # the election, while leading

    @asynccontextmanager
    async def term(self) -> AsyncIterator[tuple[Term, asyncio.Task[None]]]:
        """Wait to be chosen and take the next epoch; yields the term, and a task that ends by Deposed when it is over.

        Leaving gives the lease and the lock back.
        """
        await self._fit()
        epoch = 0
        try:
            await self._election.campaign()
            self._answered = self._clock.monotonic()
            keeper = asyncio.create_task(self._keep(lambda: epoch), name="leadership")
            try:
                epoch = await self._take_epoch(keeper)
                await self._hold(epoch)
                heed_cancel()
                log.info("leading", leads=self._name, epoch=epoch)
                name = f"{LEADER_SESSIONS[self._name]}{epoch}"
                async with Database(self._url, name=name, size=self._size) as own:
                    yield Term(epoch, own, self._name), keeper
            finally:
                keeper.cancel()
                await asyncio.wait({keeper})
                self.unreachable = False
                if epoch and self._lock is not None:
                    await self._lock.release(epoch)
        finally:  # a campaign that was cut short, too: it may have been won, by an answer that nobody read
            await self._election.release()

    async def _fit(self) -> None:
        """Wait until PostgreSQL answers: who cannot reach it must not be chosen over one who can."""
        while self._patience is not None:
            with suppress(Unavailable, TimeoutError):
                await self._epoch_now()
                return
            heed_cancel()
            await self._clock.sleep(RETRY)

    async def _keep(self, epoch: Callable[[], int]) -> None:
        """Renew the lease and the lock each second. Ends by Deposed only."""
        while True:
            heed_cancel()
            await self._clock.sleep(RETRY)
            try:
                await self._renew()
                self.unreachable = False
                await self._hold(epoch())
            except Deposed:
                raise
            except Unavailable as away:
                # Nobody can harm us while the epoch is ours; whoever takes it makes `guard` raise.
                if not self.unreachable:
                    log.warning("election unreachable, leading on", leads=self._name, error=str(away), epoch=epoch())
                self.unreachable = True
            await self._look(epoch())

    async def _renew(self) -> None:
        if not await self._election.renew():
            message = "another candidate was chosen"
            raise Deposed(message)

    async def _hold(self, epoch: int) -> None:
        if epoch and self._lock is not None:
            await self._lock.hold(epoch)

    async def _look(self, epoch: int) -> None:
        """See whether PostgreSQL answers, and the epoch is still ours. Raises Deposed."""
        if self._patience is None:
            return
        try:
            now = await self._epoch_now()
        except (Unavailable, TimeoutError):
            silent = self._clock.monotonic() - self._answered
            if silent < self._patience:
                return
            message = f"PostgreSQL has not answered for {silent:.0f} s, another candidate may reach it"
            raise Deposed(message) from None
        self._answered = self._clock.monotonic()
        if epoch and now != epoch:
            message = f"epoch {epoch} leads no more, {now} does"
            raise Deposed(message)

    async def _epoch_now(self) -> int:
        async with asyncio.timeout(_LOOK_SECONDS), self._db.connection() as tx:
            return await electing.epoch_now(tx, self._name)

    async def _take_epoch(self, keeper: "asyncio.Task[None]") -> int:
        """Take the next epoch, ending the old leader's sessions when one of them is in the way."""
        while not keeper.done():
            try:
                async with self._db.begin() as tx:
                    return await queue.take_epoch(tx, self._holder, self._name)
            except Unavailable as waited:  # an unknown commit, too: an epoch taken twice is only a higher one
                log.warning("the epoch is not free yet", leads=self._name, error=str(waited))
            with suppress(Unavailable):
                async with self._db.connection() as tx:
                    ended = await electing.end_leaders(tx, LEADER_SESSIONS[self._name])
                log.warning("ended sessions of former leaders", sessions=ended)
                continue
            await self._clock.sleep(RETRY)
        await keeper  # raises Deposed
        raise AssertionError
