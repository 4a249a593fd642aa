"""Rate limits that all API processes share: the rule of `core.domain.limits`, kept in Redis by a script.

Redis is asked for more than the request at hand needs (a tenth of a second's allowance), and the rest is spent here
within a second, so a crowd of requests costs a few round trips; a refusal is remembered as long as it holds. When Redis
cannot be used, a bucket in this process decides instead: with N processes an owner then has up to N allowances.
Logins are another matter: what is tried there is counted in PostgreSQL.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from core.clock import Clock, system
from core.domain.limits import Rate, Verdict, take, told
from core.errors import Throttled, Unavailable
from core.lua import Script, load
from core.pool import Database
from core.redis_client import RedisDown
from core.sql import statement

PURSE_SECONDS: Final = 1.0
MOST_KEYS: Final = 50_000
_AHEAD: Final = 600  # this part of a period's allowance is fetched at once
_SECOND: Final = 1_000_000  # the script counts microseconds
_RATE: Final = load("rate")


class Store(Protocol):
    """What is needed of `core.redis_client.Server`."""

    async def run(self, script: Script, keys: list[Any], args: list[Any]) -> Any:
        """Run a script, or raise RedisDown soon."""
        ...


@dataclass(slots=True)
class _Purse:
    """Units that Redis has granted and that are not spent yet; worthless after `until`."""

    units: int
    until: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Shut:
    """Redis refused `cost` units, and must refuse them and any more until then: units come back at a known pace."""

    cost: int
    until: float
    verdict: Verdict


class Buckets:
    """The same limits inside one process: less exact, always there."""

    def __init__(self, clock: Clock = system) -> None:
        """Start with every allowance whole."""
        self._clock = clock
        self._tats: dict[str, float] = {}

    def take(self, key: str, rate: Rate, cost: int) -> Verdict:
        """Decide on `cost` units of `key`, now."""
        now = self._clock.monotonic()
        verdict = take(rate, self._tats.get(key, now), now, cost=cost)
        if len(self._tats) >= MOST_KEYS:
            self._forget(now)
        self._tats[key] = verdict.tat
        return verdict

    def _forget(self, now: float) -> None:
        """Drop the keys whose allowance is whole again; when that is not half of them, those nearest to it too."""
        kept = sorted((tat, key) for key, tat in self._tats.items() if tat > now)[-MOST_KEYS // 2 :]
        self._tats = {key: tat for tat, key in kept}


class Limiter:
    """Decides on units of a key. It never fails and never waits long."""

    def __init__(self, store: Store | None, clock: Clock = system) -> None:
        """Ask `store`, or nobody but this process when it is None."""
        self._store = store
        self._clock = clock
        self._local = Buckets(clock)
        self._purses: dict[str, _Purse] = {}
        self._shut: dict[str, _Shut] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def take(self, key: str, rate: Rate, cost: int = 1) -> Verdict:
        """Take `cost` units of `key`. A refusal is a Verdict that granted nothing; it costs nothing."""
        known = self._known(key, cost)
        if known is not None:
            return known
        async with self._asking.setdefault(key, asyncio.Lock()):
            # Whoever held the lock before may have brought enough for us.
            verdict = self._known(key, cost) or await self._fetch(key, rate, cost)
        if len(self._asking) > MOST_KEYS:
            self._asking = {each: lock for each, lock in self._asking.items() if lock.locked()}
        return verdict

    def _known(self, key: str, cost: int) -> Verdict | None:
        purse = self._purses.get(key)
        if purse is not None and purse.units >= cost and self._clock.monotonic() < purse.until:
            purse.units -= cost
            fetched = purse.verdict
            return Verdict(  # not `replace`, which is ten times slower: this is every request's way
                granted=cost,
                tat=fetched.tat,
                remaining=fetched.remaining + purse.units,
                reset=fetched.reset,
                retry_after=0.0,
            )
        shut = self._shut.get(key)
        if shut is not None and cost >= shut.cost:
            left = shut.until - self._clock.monotonic()
            if left > 0:
                return replace(shut.verdict, retry_after=left)
        return None

    async def _fetch(self, key: str, rate: Rate, cost: int) -> Verdict:
        verdict = await self._ask(key, rate, cost)
        if verdict is None:
            return self._local.take(key, rate, cost)
        now = self._clock.monotonic()
        if verdict.granted < cost:
            if len(self._shut) >= MOST_KEYS:
                self._shut.clear()
            self._shut[key] = _Shut(cost, now + verdict.retry_after, verdict)
            return verdict
        left = verdict.granted - cost
        purse = self._purses.get(key)
        if purse is not None and now < purse.until:
            left += purse.units  # too few for this request, but paid for
        if left:
            if len(self._purses) >= MOST_KEYS:
                self._purses.clear()  # costs those units, which come back within the period
            self._purses[key] = _Purse(left, now + PURSE_SECONDS, verdict)
        return replace(verdict, granted=cost, remaining=verdict.remaining + left)

    async def _ask(self, key: str, rate: Rate, cost: int) -> Verdict | None:
        """Return what Redis says, or None when it cannot say it soon."""
        if self._store is None:
            return None
        period, want = round(rate.period * _SECOND), max(cost, rate.limit // _AHEAD)
        try:
            answer = await self._store.run(_RATE, [f"tf:rate:{key}"], [rate.limit, period, cost, want])
        except RedisDown:
            return None
        granted, remaining, reset, wait = answer
        return Verdict(granted=granted, tat=0.0, remaining=remaining, reset=reset / _SECOND, retry_after=wait / _SECOND)


class Tries:
    """For logins and other guesses: all processes share an allowance in PostgreSQL.

    So neither an emptied Redis nor the next process opens a door to guessing. Whoever has used up what this process
    alone would allow is refused without asking anybody, so a guesser costs PostgreSQL no more than the allowance.
    """

    def __init__(self, db: Database, clock: Clock = system) -> None:
        """Count in `db`, and in a bucket of this process."""
        self._db = db
        self._local = Buckets(clock)

    async def take(self, key: str, rate: Rate) -> Verdict:
        """Take one unit of `key`. A refusal costs nothing."""
        near = self._local.take(key, rate, 1)
        if not near.granted:
            return near
        try:
            async with self._db.connection() as tx:
                row = await tx.fetchrow(statement("try_login"), key, rate.period, rate.interval)
        except Unavailable:
            return near  # without PostgreSQL nobody is let in anyway
        # No row: refused behind another who tried for the first time in the same moment.
        return told(rate, granted=row is not None and row["granted"], reset=row["reset"] if row else rate.period)


def refuse(verdict: Verdict, rate: Rate, cost: int = 1) -> None:
    """Raise Throttled when `verdict` granted less than `cost`."""
    if verdict.granted >= cost:
        return
    if cost > rate.limit:
        message = f"This asks for {cost} at once, and the limit is {rate.limit} in {rate.period:g} seconds"
        raise Throttled(message, retry_after=rate.period, fix=f"split it into parts of at most {rate.limit}")
    message = f"The limit of {rate.limit} in {rate.period:g} seconds is used up"
    raise Throttled(message, retry_after=verdict.retry_after, fix="wait as long as Retry-After says, then try again")
