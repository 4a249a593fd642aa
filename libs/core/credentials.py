"""Who is asking: credentials on the hot path, cached for five seconds and never longer.

So a revoked key, a disabled user or a lost administrator right is known to every process within five seconds, with or
without Redis. `expires_at` is compared at each use, not at each reading. That a key was used is written at most once a
minute, in the background, for all keys in one statement.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from core.auth import Tokens, same_secret, split_key, wrong_key, wrong_token
from core.clock import Clock, system
from core.errors import Unavailable
from core.pool import Database
from core.sql import statement

CACHE_SECONDS: Final = 5.0
NOTE_SECONDS: Final = 5.0
NOTE_EVERY: Final = timedelta(minutes=1)
MOST_CACHED: Final = 20_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated user; `key_id` names the API key that was shown, if it was one."""

    user_id: int
    username: str
    is_admin: bool
    key_id: int | None = None

    @property
    def scope(self) -> int | None:
        """The owner whose tasks are visible: the user's own, or None, everybody's, for an administrator."""
        return None if self.is_admin else self.user_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyRow:
    hash: bytes = field(repr=False)
    expires_at: datetime | None
    principal: Principal


class _Recent(Generic[T]):
    """Remembers answers for a few seconds; callers that miss together ask once. None (not there) is not remembered."""

    def __init__(self, ask: Callable[[Any], Awaitable[T | None]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._kept: dict[Any, tuple[float, T]] = {}
        self._asking: dict[Any, asyncio.Task[T | None]] = {}

    async def get(self, name: Any) -> T | None:
        found = self._kept.get(name)
        if found is not None and self._clock.monotonic() < found[0]:
            return found[1]
        task = self._asking.get(name)
        if task is None:
            task = asyncio.ensure_future(self._fetch(name))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._asked(name, done))
        # Shielded: a client that hangs up must not fail the others who wait for the same row.
        return await asyncio.shield(task)

    async def _fetch(self, name: Any) -> T | None:
        # Counted from before the question: the answer may be that old already when it arrives.
        until = self._clock.monotonic() + CACHE_SECONDS
        answer = await self._ask(name)
        if len(self._kept) >= MOST_CACHED:
            self._kept.clear()
        if answer is None:
            self._kept.pop(name, None)
        else:
            self._kept[name] = (until, answer)
        return answer

    def _asked(self, name: Any, done: "asyncio.Task[T | None]") -> None:
        self._asking.pop(name, None)
        if not done.cancelled():
            done.exception()  # looked at here, because all who asked may have hung up

    def forget(self) -> None:
        self._kept.clear()


class Credentials:
    """Turns an API key or an access token into a Principal. Raises Unauthenticated, or Unavailable."""

    def __init__(self, db: Database, tokens: Tokens, clock: Clock = system) -> None:
        """Read from `db`, believe what `tokens` signed."""
        self._db = db
        self._tokens = tokens
        self._clock = clock
        self._keys: _Recent[_KeyRow] = _Recent(self._read_key, clock)
        self._users: _Recent[Principal] = _Recent(self._read_user, clock)
        self._noted: dict[int, datetime] = {}
        self._used: dict[int, datetime] = {}

    async def of_key(self, text: str) -> Principal:
        """Return who an API key belongs to."""
        halves = split_key(text)
        if halves is None:
            raise wrong_key()
        prefix, secret = halves
        row = await self._keys.get(prefix)
        right = same_secret(row.hash if row else None, secret)
        now = self._clock.now()
        if row is None or not right or (row.expires_at is not None and row.expires_at <= now):
            raise wrong_key()
        self._note(row.principal.key_id, now)
        return row.principal

    async def of_token(self, token: str) -> Principal:
        """Return who an access token was issued to, if that user is still welcome."""
        principal = await self._users.get(self._tokens.read(token))
        if principal is None:
            raise wrong_token()
        return principal

    def forget(self) -> None:
        """Read everything anew: after this process itself changed a key."""
        self._keys.forget()
        self._users.forget()

    async def _read_key(self, prefix: str) -> _KeyRow | None:
        async with self._db.connection() as tx:
            row = await tx.fetchrow(statement("credential_of_key"), prefix)
        if row is None:
            return None
        principal = Principal(
            user_id=row["user_id"], username=row["username"], is_admin=row["is_admin"], key_id=row["key_id"]
        )
        return _KeyRow(hash=row["hash"], expires_at=row["expires_at"], principal=principal)

    async def _read_user(self, user_id: int) -> Principal | None:
        async with self._db.connection() as tx:
            row = await tx.fetchrow(statement("credential_of_user"), user_id)
        return None if row is None else Principal(**dict(row))

    def _note(self, key_id: int | None, now: datetime) -> None:
        if key_id is None:
            return
        last = self._noted.get(key_id)
        if last is None or now - last >= NOTE_EVERY:
            if len(self._noted) >= MOST_CACHED:
                self._noted.clear()
            self._noted[key_id] = self._used[key_id] = now

    async def write_notes(self) -> int:
        """Write down which keys were used since the last call; return how many. Notes that fail wait for the next."""
        used, self._used = self._used, {}
        if not used:
            return 0
        try:
            async with self._db.connection() as tx:
                await tx.execute(statement("keys_used"), list(used), list(used.values()))
        except Unavailable:
            self._used = used | self._used
            return 0
        return len(used)

    async def keep_notes(self) -> None:
        """Write notes every few seconds until cancelled, and once more then."""
        try:
            while True:
                await self._clock.sleep(NOTE_SECONDS)
                await self.write_notes()
        finally:
            await self.write_notes()
