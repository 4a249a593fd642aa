"""What a process remembers of failovers, so that no connection stays on a server that no longer takes writes.

A refused write tells of a failover to the connection that wrote. Connections that only read or listen get no such
error: they would stay on the former primary and see nothing new. So a refusal counts for the whole process.
"""

from collections.abc import Callable
from typing import Final

from core import clock

AGE_SECONDS: Final = 20.0
WATCH_SECONDS: Final = 300.0


class Failovers:
    """The last time that a server refused a write because it is no primary."""

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._seen: float | None = None

    def noticed(self) -> None:
        """Note that a write was refused just now."""
        self._seen = self._monotonic()

    def outdated(self, opened: float) -> bool:
        """Tell whether a connection that was opened then must be replaced.

        Every connection from before a refusal must. For WATCH_SECONDS after it, a new one may have reached the former
        primary before that was demoted: it is replaced when it is AGE_SECONDS old.
        """
        if self._seen is None:
            return False
        now = self._monotonic()
        return opened <= self._seen or (now - self._seen < WATCH_SECONDS and now - opened >= AGE_SECONDS)


postgres: Final = Failovers()
