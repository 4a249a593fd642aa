"""Doors to Redis: the lazy sync and async faces, and `Server`, which never lets a caller wait for a dead one.

Everything in Redis can be lost at any moment, so one error is enough: `RedisDown` says that a server cannot be used
just now (unreachable, too slow, out of memory for writes, no right to do it, a key of another type, or switched off by
TASKFLOW_REDIS=off), and that the caller goes on without it. A breaker turns a second's worth of such waits into none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
from redis import exceptions as failure
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from core import clock, telemetry
from core.config import settings
from core.errors import Unavailable
from core.failover import Failovers
from core.lua import Script
from core.redis_errors import down, fix_of, reason_of

if TYPE_CHECKING:
    redis_high: "redis.Redis"
    redis_low: "redis.Redis"

__all__ = [
    "Breaker",
    "RedisDown",
    "Server",
    "close_async_clients",
    "get_async_redis_client",
    "get_redis",
    "get_redis_client",
    "redis_high",
    "redis_low",
    "servers",
]

Level = Literal["high", "low"]
T = TypeVar("T")

COMMAND_SECONDS = 0.2  # no request waits longer than this for a hint
OPEN_SECONDS = 1.0  # how long a failed server is left alone before one caller may try it again
HEALTH_SECONDS = 30  # a pooled connection that was idle for longer is pinged first
# After a restart or a failover a pooled connection fails at its first use: it is replaced, and the command sent again,
# once. A timeout is not retried.
_AGAIN = (failure.ConnectionError, failure.ReadOnlyError)
_TELL_SECONDS = 3600.0  # a reason that comes and goes is logged no more often
log = telemetry.get_logger("redis")


class RedisDown(Unavailable):
    """Redis cannot be used just now. Nothing depends on it: go on without."""

    code = "redis_down"


def _level(priority: str) -> Level:
    return "high" if priority.lower() == "high" else "low"


def address(level: Level) -> tuple[str, int]:
    """Return host and port of a server, which tells whether both levels are one."""
    if level == "high":
        return settings.redis_host_high, settings.redis_port_high
    return settings.redis_host_low, settings.redis_port_low


def _options(level: Level, seconds: float) -> dict[str, Any]:
    host, port = address(level)
    user = settings.redis_username_high if level == "high" else settings.redis_username_low
    secret = settings.redis_password_high if level == "high" else settings.redis_password_low
    tls = settings.redis_tls_high if level == "high" else settings.redis_tls_low
    return {
        **({"unix_socket_path": host} if host.startswith("/") else {"host": host, "port": port, "ssl": tls}),
        "username": user,
        "password": secret.get_secret_value() if secret else None,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "health_check_interval": HEALTH_SECONDS,
        "protocol": 2,
        "driver_info": None,  # CLIENT SETINFO: Redis 7.0 has no such command, and no rights could name it there
    }


def _refuse_when_off() -> None:
    if not settings.redis:
        message = "Redis is switched off"
        raise RedisDown(message, fix="unset TASKFLOW_REDIS")


@cache
def _sync_client(level: Level) -> redis.Redis:
    return redis.Redis(**_options(level, COMMAND_SECONDS), retry=Retry(NoBackoff(), 1, _AGAIN))


def get_redis_client(priority: str = "low") -> redis.Redis:
    """Return the sync client for a priority: "high" has its own server, every other one shares the low one."""
    _refuse_when_off()
    return _sync_client(_level(priority))


def get_redis() -> redis.Redis:
    """Return the sync client of the high server: accounts, rate limits."""
    return get_redis_client("high")


def __getattr__(name: str) -> Any:
    if name in {"redis_high", "redis_low"}:
        return get_redis_client(name.removeprefix("redis_"))
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Level, "redis.asyncio.Redis"]] = WeakKeyDictionary()


def new_async_client(level: Level, seconds: float = COMMAND_SECONDS) -> "redis.asyncio.Redis":
    """Return an async client of its own, whose caller closes it."""
    return redis.asyncio.Redis(**_options(level, seconds), retry=AsyncRetry(NoBackoff(), 1, _AGAIN))


def get_async_redis_client(priority: str = "low") -> "redis.asyncio.Redis":
    """Return the async client for a priority, one for each event loop (a connection belongs to its loop)."""
    _refuse_when_off()
    mine = _of_loop.setdefault(asyncio.get_running_loop(), {})
    level = _level(priority)
    if level not in mine:
        mine[level] = new_async_client(level)
    return mine[level]


async def close_async_clients() -> None:
    """Close the clients that `get_async_redis_client` made for this event loop."""
    for client in _of_loop.pop(asyncio.get_running_loop(), {}).values():
        await client.aclose()


class Breaker:
    """Remembers that a server failed, so that only one caller a second finds out again."""

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic, seconds: float = OPEN_SECONDS) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._until: float | None = None

    @property
    def open(self) -> bool:
        """Whether the server failed and has not answered since."""
        return self._until is not None

    def admit(self) -> bool:
        """Tell whether a caller may try: always while all is well, else the first one after the pause, as a probe."""
        if self._until is None:
            return True
        now = self._monotonic()
        if now < self._until:
            return False
        self._until = now + self._seconds  # the probe is under way: the others do not queue up behind it
        return True

    def failed(self) -> None:
        """Leave the server alone for a while."""
        self._until = self._monotonic() + self._seconds

    def answered(self) -> None:
        """Let everybody through again."""
        self._until = None


class Server:
    """One Redis server behind a breaker and a deadline. Made once a process; closed by its owner."""

    def __init__(
        self, level: Level, *, seconds: float = COMMAND_SECONDS, monotonic: Callable[[], float] = clock.monotonic
    ) -> None:
        self.level = level
        self.breaker = Breaker(monotonic)
        self._seconds = seconds
        self._client: redis.asyncio.Redis | None = None
        self.seen_down = False  # a call failed, for whatever reason, and no script has run since
        self.failovers = Failovers(monotonic)
        self._monotonic = monotonic
        self._logged: dict[str, float] = {}  # when which reason was

    @property
    def usable(self) -> bool:
        """Whether it seems to work: for choosing a way, never for deciding about a task."""
        return bool(settings.redis) and not self.seen_down

    @property
    def client(self) -> "redis.asyncio.Redis":
        """The client itself, made at its first use."""
        if self._client is None:
            _refuse_when_off()
            self._client = new_async_client(self.level, self._seconds)
        return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def call(self, ask: "Callable[[redis.asyncio.Redis], Awaitable[T]]", *, seconds: float | None = None) -> T:
        """Await `ask(client)` within the deadline. Raises RedisDown, at once while the server is known to be down."""
        _refuse_when_off()
        if not self.breaker.admit():
            message = f"The {self.level} Redis did not answer a moment ago"
            raise RedisDown(message)
        try:
            async with asyncio.timeout(seconds or self._seconds):
                answer = await ask(self.client)
        except Exception as error:
            if not down(error):
                self.breaker.answered()
                raise
            raise self.failed(error) from error
        self.breaker.answered()
        self._logged.pop("password", None)
        return answer

    async def run(self, script: Script, keys: list[Any], args: list[Any], *, seconds: float | None = None) -> Any:
        """Run a Lua script, by its digest when the server knows it. Raises RedisDown."""

        async def ask(client: "redis.asyncio.Redis") -> Any:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *args)
            except failure.NoScriptError:  # a new or restarted server, or SCRIPT FLUSH
                return await client.eval(script.text, len(keys), *keys, *args)

        answer = await self.call(ask, seconds=seconds)
        self.seen_down = False  # out of memory, plain reads still work and scripts do not: only these tell
        return answer

    def failed(self, error: BaseException) -> RedisDown:
        """Note that a call ended with `error`, and return what it amounts to."""
        self.seen_down = True
        # A server that refuses answers at once, and other commands may still work: there is nothing to be spared.
        if isinstance(error, failure.ResponseError):
            self.breaker.answered()
        else:
            self.breaker.failed()
        reason, text = reason_of(error), str(error) or type(error).__name__
        if reason == "read_only":
            self.failovers.noticed()
        telemetry.metrics().redis_errors_total.labels(self.level, reason).inc()
        self._log(reason, text)
        return RedisDown(f"The {self.level} Redis cannot be used: {text}")

    def _log(self, reason: str, text: str) -> None:
        fix, now = fix_of(reason, self.level), self._monotonic()
        if fix and now - self._logged.get(reason, float("-inf")) >= _TELL_SECONDS:
            self._logged[reason] = now
            log.error("Redis refuses; workers poll PostgreSQL", server=self.level, reason=reason, error=text, fix=fix)


def servers(
    *, seconds: float = COMMAND_SECONDS, monotonic: Callable[[], float] = clock.monotonic
) -> tuple[Server, Server]:
    """Return (high, low); both are the same object when the settings name one server twice, or none."""
    high = Server("high", seconds=seconds, monotonic=monotonic)
    if not settings.redis or address("high") == address("low"):
        return high, high
    return high, Server("low", seconds=seconds, monotonic=monotonic)
