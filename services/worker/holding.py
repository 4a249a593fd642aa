"""What this worker holds: every claimed task from its claim until PostgreSQL knows its end.

Owns the table, decides nothing. An attempt is known by (id, attempt), because a task that was released may come back
while its old handler is still being stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from core.domain.ordering import Lane

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from core.domain.task import Claimed, Ending
    from services.worker.catalogue import Terms
    from services.worker.child import Child

Key: TypeAlias = tuple[bytes, int]


class Job(msgspec.Struct, eq=False):
    """One attempt that this worker runs. `asked` says who wanted it to stop: "", "user" or "drain"."""

    task: Claimed
    key: Key
    lane: Lane
    terms: Terms
    child: Child | None = None
    asked: str = ""
    begun: float = 0.0
    place: int = 0  # among the async tasks that its child was sent, the first one is 1
    ping: int = 0
    progress: tuple[float, str] | None = None
    logs: list[str] = []


class Holding:
    """The local table that the inventory compares with PostgreSQL's."""

    def __init__(self) -> None:
        self.jobs: dict[Key, Job] = {}
        self.ending: dict[Key, Ending] = {}  # ended here, not yet recorded there
        self.claims: set[UUID] = set()  # asked for, not answered yet
        self.lanes: dict[Lane, int] = dict.fromkeys(Lane, 0)

    def add(self, jobs: Iterable[Job]) -> None:
        """Hold what was claimed."""
        for job in jobs:
            self.jobs[job.key] = job
            self.lanes[job.lane] += 1

    def drop(self, jobs: Iterable[Job]) -> None:
        """Let go of what ended; some of it may have been let go of before."""
        for job in jobs:
            if self.jobs.pop(job.key, None) is not None:
                self.lanes[job.lane] -= 1

    def close(self, endings: Iterable[Ending]) -> None:
        """Remember ends until they are recorded."""
        for ending in endings:
            self.ending[ending.id.bytes, ending.attempt] = ending

    def recorded(self, endings: Iterable[Ending]) -> None:
        """Forget ends that PostgreSQL has, or refuses for good."""
        for ending in endings:
            self.ending.pop((ending.id.bytes, ending.attempt), None)

    def keys(self) -> set[Key]:
        """Everything held, running and ending."""
        return self.jobs.keys() | self.ending.keys()

    @property
    def empty(self) -> bool:
        """Whether nothing is held, being claimed or ending."""
        return not (self.jobs or self.ending or self.claims)
