"""Everything that a request may need, made once by `main` (or a test) and handed to the application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from core import migrate, telemetry
from core.auth import Passwords, Tokens
from core.clock import Clock, system
from core.config import settings
from core.credentials import Credentials
from core.domain.task import Submission, Submitted
from core.errors import Unavailable
from core.limits import Limiter, Tries
from core.pool import Database
from core.references import References
from core.waking import Waker
from services.api.endings import Endings
from services.api.submitting import Submitter

_LOOK_SECONDS = 1.0
_LOCK_WAIT = "200ms"  # how long a keyed submit waits for another one with its key
_STATEMENT_LIMIT = "5s"
log = telemetry.get_logger("api")


@dataclass(slots=True, kw_only=True)
class Readiness:
    """What /readyz tells. `migrated` is None until PostgreSQL could be asked."""

    started: bool = False
    migrated: bool | None = None
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Whether requests should come here.

        A store that is down is no reason to say no: then every replica would leave, and nobody would be left to
        answer 503 with the reason.
        """
        return self.started and self.migrated is not False and not self.draining


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The process's resources, by what they are for."""

    reads: Database
    writes: Database
    submitter: Submitter
    endings: Endings
    credentials: Credentials
    tokens: Tokens
    passwords: Passwords
    limiter: Limiter
    logins: Tries
    references: References
    readiness: Readiness
    clock: Clock

    def drain(self) -> None:
        """Say that this process goes down: not ready any more, and nobody waits for results here."""
        self.readiness.draining = True
        self.endings.release()


@asynccontextmanager
async def open_parts(*, passwords: Passwords | None = None, clock: Clock = system) -> AsyncIterator[Parts]:
    """Make all parts from the settings and close them again. Starts with every store down."""
    url = settings.database_url
    async with AsyncExitStack() as stack:
        writes = await stack.enter_async_context(
            Database(url, name="tf-api", size=6, statement_timeout=_STATEMENT_LIMIT)
        )
        keyed = await stack.enter_async_context(
            Database(url, name="tf-api-keyed", size=2, statement_timeout=_STATEMENT_LIMIT, lock_timeout=_LOCK_WAIT)
        )
        reads = await stack.enter_async_context(
            Database(url, name="tf-api-read", size=6, hot=False, statement_timeout=_STATEMENT_LIMIT)
        )
        references = await stack.enter_async_context(References(clock=clock))
        tokens = Tokens(
            settings.secret_key.get_secret_value(),
            settings.algorithm,
            timedelta(minutes=settings.access_token_expire_minutes),
        )
        limiter = Limiter(references.high, clock)
        waker = Waker(reads, clock)

        async def hint(rows: Sequence[tuple[Submission, Submitted]]) -> None:
            waker.submitted(rows)
            await references.hint_submitted(rows)

        parts = Parts(
            reads=reads,
            writes=writes,
            submitter=Submitter(writes, keyed, hint),
            endings=Endings(reads, clock),
            credentials=Credentials(writes, tokens, clock),
            tokens=tokens,
            passwords=passwords or Passwords(),
            limiter=limiter,
            logins=Tries(writes, clock),
            references=references,
            readiness=Readiness(),
            clock=clock,
        )
        background = [asyncio.create_task(parts.credentials.keep_notes()), asyncio.create_task(_migrated(parts))]
        parts.readiness.started = True
        try:
            yield parts
        finally:
            await _close(parts, background)
            await waker.close()


async def _close(parts: Parts, background: list[asyncio.Task[None]]) -> None:
    parts.drain()
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await parts.submitter.close()
    await parts.endings.close()


async def _migrated(parts: Parts) -> None:
    """Ask PostgreSQL once a second whether its schema is ours, until it is."""
    while not parts.readiness.migrated:
        with suppress(Unavailable):
            parts.readiness.migrated = await asyncio.to_thread(migrate.is_ready, settings.database_url)
        if not parts.readiness.migrated:
            await parts.clock.sleep(_LOOK_SECONDS)
