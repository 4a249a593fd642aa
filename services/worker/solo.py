"""A task that took two workers down with it gets a whole worker: everything else must have ended, nothing may begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import clock, telemetry
from core.errors import Unavailable
from core.pool import heed_cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from core.domain.task import Claimed
    from services.worker.claiming import Claimer
    from services.worker.holding import Holding

WISH_SECONDS: Final = 15.0  # how long a worker stays shut for one task; then another worker may be emptier
_LOOK_SECONDS: Final = 0.1
log = telemetry.get_logger("worker.solo")


class Solo:
    """At most one wish at a time. While there is one, and while its task runs, `shut` keeps the lanes closed."""

    def __init__(
        self, holding: Holding, claimer: Claimer, run: Callable[[list[Claimed]], None], *, may: Callable[[], bool]
    ) -> None:
        """`may` says whether this worker may claim at all: not while it is cordoned or leaves."""
        self._may = may
        self._holding = holding
        self._claimer = claimer
        self._run = run
        self._task: UUID | None = None
        self._types: Sequence[str] = ()
        self._until = 0.0

    @property
    def shut(self) -> bool:
        """Whether nothing else may be claimed now."""
        return self._task is not None

    def wish(self, task: UUID, types: Sequence[str]) -> None:
        """Note that a task wants this whole worker."""
        if self._task is None:
            log.info("a task wants a whole worker: no other is begun", task_id=str(task))
            self._task, self._types = task, types
            self._until = clock.monotonic() + WISH_SECONDS

    async def serve(self, room: Callable[[], None]) -> None:
        """Grant wishes, for ever; `room` opens the lanes again."""
        while True:
            heed_cancel()
            await clock.system.sleep(_LOOK_SECONDS)
            if self._task is not None and (self._holding.empty or not self._may() or clock.monotonic() > self._until):
                await self._grant(self._task)
                self._task = None
                room()

    async def _grant(self, task: UUID) -> None:
        if not self._may():
            return
        if not self._holding.empty:
            log.info("the worker did not become empty in time; another one may", task_id=str(task))
            return
        try:
            claimed = await self._claimer.claim([task], self._types, solo=True)
        except Unavailable:
            return
        if claimed:
            self._run(claimed)
        while self._holding.jobs:
            await clock.system.sleep(_LOOK_SECONDS)
