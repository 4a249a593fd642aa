"""Endings into PostgreSQL: what ends while one commit is in flight is the next commit.

An ending is held until PostgreSQL has recorded or refused it, however long PostgreSQL is away. An ending whose row
another transaction has locked is set aside, so that it delays no other ending. An ending is fenced when the row waits
for it no more and no event tells of it: another owner has the task, so the outcome is dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from core import clock, refusals, telemetry
from core.domain.lifecycle import ENDED
from core.errors import Unavailable
from core.pool import heed_cancel
from services.worker import crowd
from services.worker.charging import rejected
from services.worker.recording import Answer, record
from services.worker.set_aside import MOST_BYTES, MOST_ROWS, SetAside, size_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from core.domain.task import Ending, Moved
    from core.pool import Database
    from services.worker.holding import Holding

MOST_HELD: Final = 10_000  # beyond that nothing new is claimed
_FACTS: Final = attrgetter("queue", "type", "status")
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
OVERDUE_SECONDS: Final = 60.0
_PROBE_SECONDS: Final = 1.0
_SAY_SECONDS: Final = 60.0
log = telemetry.get_logger("worker.finishing")


class Finisher:
    """The one writer of endings."""

    def __init__(
        self, database: Database, holding: Holding, hint: Callable[[list[Moved]], Awaitable[None]] | None = None
    ) -> None:
        """`hint` tells Redis what was moved; it never raises."""
        self._database = database
        self._holding = holding
        self.hint = hint
        self._held: deque[Ending] = deque()
        self._aside = SetAside()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last = 0  # how many the last commit took
        self._hints: set[asyncio.Task[None]] = set()
        self.away = False  # PostgreSQL did not answer the last try, or refuses all endings
        self._refused: Exception | None = None  # why all are held, while PostgreSQL refuses them
        self._say_at = 0.0
        self.overdue = 0
        self.on_back: Callable[[], None] = lambda: None  # PostgreSQL answers again

    @property
    def full(self) -> bool:
        """Whether so much is held that nothing new should be begun."""
        return self.held > MOST_HELD

    @property
    def held(self) -> int:
        """How many endings wait to be recorded, beside those that are under way."""
        return len(self._held) + len(self._aside)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be recorded."""
        return self._idle.is_set()

    def look(self) -> int:
        """Return how many endings are held, once one of them has been for a minute; before that, 0.

        `overdue` keeps the answer for other threads.
        """
        oldest = self._aside.oldest
        self.overdue = 0 if oldest is None or clock.monotonic() - oldest < OVERDUE_SECONDS else self.held
        return self.overdue

    @property
    def useless(self) -> bool:
        """Whether PostgreSQL answers and has taken no ending of this worker for a minute."""
        return self.refusing and self.overdue > 0

    def note(self) -> str:
        """Return what a probe is told, from any thread; empty when there is nothing to tell."""
        held = self.overdue
        return f"holds {held} endings; PostgreSQL has not taken one of them for a minute" if held else ""

    @property
    def refusing(self) -> bool:
        """Whether PostgreSQL answers and refuses every ending, for a reason that is not in them."""
        return self._refused is not None

    def put(self, endings: list[Ending]) -> None:
        """Take endings to be recorded."""
        self._held.extend(endings)
        self._work.set()
        self._idle.clear()

    async def flushed(self) -> None:
        """Wait until nothing is held."""
        await self._idle.wait()

    async def serve(self) -> None:
        """Record what comes, for ever."""
        while True:
            heed_cancel()
            if self._refused is not None:
                await self._try_one(self._refused)
                continue
            await self._due()
            while not self.refusing and ((due := self._aside.take()) or self._held):
                if due:
                    await self._finish(due)
                if self._held and not self.refusing:
                    await crowd.gather(self._last, self._more, self._work)
                    batch = self._take()
                    self._last = len(batch)
                    await self._finish(batch)
            if not self._held:
                self._work.clear()
                if not self._aside:
                    self._idle.set()

    async def _due(self) -> None:
        """Wait for new endings, or until one that was set aside is to be tried again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._aside.seconds_to_next):
                await self._work.wait()

    def _more(self) -> bool:
        """Whether more endings may come, and there is room for them in one commit."""
        return bool(self._holding.jobs) and len(self._held) < MOST_ROWS

    def _take(self) -> list[Ending]:
        batch: list[Ending] = []
        size = 0
        while self._held and len(batch) < MOST_ROWS:
            size += size_of(self._held[0])
            if batch and size > MOST_BYTES:
                break
            batch.append(self._held.popleft())
        return batch

    async def _finish(self, batch: list[Ending], *, others_pass: bool = False) -> None:
        """Record one batch; what cannot be recorded is found by halves. Only an error about the data blames an ending.

        `others_pass` says that PostgreSQL takes other endings at this moment.
        """
        try:
            await self._record(batch)
        except Exception as refused:  # noqa: BLE001 - no ending is given up for an error, whatever it is
            if others_pass or refusals.rejected(refused):
                await self._narrow(batch, refused)
            else:
                await self._compare(batch, refused)

    async def _narrow(self, batch: list[Ending], refused: Exception) -> None:
        """Find what is to blame: a value that cannot be stored fails its task, what fails otherwise is tried again."""
        if len(batch) > 1:
            half = len(batch) // 2
            await self._finish(batch[:half], others_pass=True)
            await self._finish(batch[half:], others_pass=True)
            return
        instead = rejected(batch[0])
        if refusals.rejected(refused) and batch[0] != instead:
            log.warning("an ending was refused; its task fails", task_id=str(batch[0].id), error=str(refused)[:500])
            await self._finish([instead], others_pass=True)
        elif self._aside.put(batch, to_blame=True):
            message = "PostgreSQL refuses one ending and takes others; it is held and tried again"
            log.error(message, task_id=str(batch[0].id), error=_words(refused))

    async def _compare(self, batch: list[Ending], refused: Exception) -> None:
        """Ask by one ending, or by two, whether PostgreSQL refuses these or all."""
        fresh = [ending for ending in batch if not self._aside.blames(ending)]
        tried = fresh[:2] if len(batch) > 1 else []
        if len(fresh) == 1 and (another := self._another(fresh[0])) is not None:
            tried.append(another)
        for one in tried:
            if await self._passes(one):
                await self._finish([ending for ending in batch if ending is not one], others_pass=True)
                return
        self._aside.put([*batch, *tried])
        if len({*fresh, *tried}) > 1:
            self.away, self._refused = True, refused
        self._tell_held(refused)

    def _another(self, than: Ending) -> Ending | None:
        return self._held.popleft() if self._held else self._aside.another(than)

    async def _passes(self, one: Ending) -> bool:
        """Try one ending alone. A value that cannot be stored is an answer, too: then PostgreSQL takes others."""
        try:
            await self._record([one])
        except Exception as refused:  # noqa: BLE001 - as above
            if not refusals.rejected(refused):
                return False
            await self._narrow([one], refused)
        return True

    async def _try_one(self, refused: Exception) -> None:
        """All are held: try another one each second. The first that passes says that PostgreSQL takes endings again."""
        await clock.system.sleep(_PROBE_SECONDS)
        one = self._aside.another() or (self._held.popleft() if self._held else None)
        if one is None or await self._passes(one):
            self._back()
        else:
            self._aside.put([one])
            self._tell_held(refused)

    def _tell_held(self, refused: Exception) -> None:
        """Say once a minute that endings are held."""
        if clock.monotonic() >= self._say_at:
            self._say_at = clock.monotonic() + _SAY_SECONDS
            message = "PostgreSQL refuses endings for a reason that is not in them; they are held and tried again"
            log.error(message, held=self.held, all=self.refusing, error=_words(refused))

    def _back(self) -> None:
        """Go on: PostgreSQL takes endings."""
        if self._refused is not None:
            log.info("PostgreSQL takes endings again", held=self.held)
        self._refused, self._say_at = None, 0.0
        if self.away:
            self.away = False
            self.on_back()

    async def _record(self, batch: list[Ending]) -> None:
        """Record one batch, however long PostgreSQL is away. Raises what PostgreSQL says about the endings."""
        # While some row is known to be locked, others of the same transaction may be: no statement waits for one then.
        pause, skip_locked = _FIRST_PAUSE, bool(self._aside)
        answer: Answer | None = None
        while answer is None:
            heed_cancel()
            try:
                answer = await record(self._database, batch, skip_locked=skip_locked)
            except Unavailable as away:
                # Only a lock on a whole table stops the statement that skips locked rows.
                if refusals.lock_held(away) and not skip_locked:
                    skip_locked = True
                    continue
                skip_locked = True
                if not self.away:
                    log.warning("endings are held until PostgreSQL answers", held=len(self._held), error=str(away))
                self.away = True
                await clock.system.sleep(pause * (0.5 + clock.rand()))
                pause = min(pause * 2, _LONGEST_PAUSE)
        if self.away:
            self._back()
        self._set_aside(answer.locked)
        left = {(ending.id, ending.attempt) for ending in answer.locked}
        done = [ending for ending in batch if (ending.id, ending.attempt) not in left] if left else batch
        self._close(done)
        self._tell(done, answer.moved, answer.fenced)

    def _close(self, endings: list[Ending]) -> None:
        """Let go of endings that PostgreSQL has, or refuses for good."""
        self._aside.settle(endings)
        self._holding.recorded(endings)

    def _set_aside(self, locked: list[Ending]) -> None:
        if new := self._aside.put(locked):
            log.warning(
                "another transaction has locked the rows of these tasks; their endings wait, all others go on",
                tasks=[str(one.id) for one in new][:10],
                number=len(self._aside),
            )

    def _tell(self, batch: list[Ending], moved: list[Moved], fenced: list[Ending]) -> None:
        metrics = telemetry.metrics()
        if fenced:
            metrics.fenced_writes_total.labels("finish").inc(len(fenced))
            log.warning("outcomes were refused: their tasks have moved on", tasks=[str(one.id) for one in fenced][:10])
        for reason, number in Counter(ending.reason for ending in batch).items():
            metrics.attempts_total.labels(reason.value).inc(number)
        for (name, kind, status), number in Counter(map(_FACTS, moved)).items():
            if status in ENDED:
                metrics.tasks_total.labels(name, kind, status.value).inc(number)
        back = [row for row in moved if row.gated or row.status not in ENDED]
        if back and self.hint is not None:  # beside the next commit, not before it
            task = asyncio.ensure_future(self.hint(back))
            self._hints.add(task)
            task.add_done_callback(self._hints.discard)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
