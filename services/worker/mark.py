"""The memory in which a child notes what it has begun: it tells a death's culprits from those that waited."""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING, NamedTuple

from taskflow_queue.protocol import MARK

if TYPE_CHECKING:
    from services.worker.holding import Key


class Begun(NamedTuple):
    """The sync task that began last, if any did, and how many of the async ones have begun."""

    sync: Key | None
    asyncs: int


class Mark:
    """One child's note. What is in it is the child's word, and only says something of the child's own tasks."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def open(self) -> int:
        """Make it; the descriptor is for the child to inherit."""
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `take`
        self._file.truncate(MARK.size)
        return self._file.fileno()

    def take(self) -> Begun:
        """Return the note and forget it: after the child's death."""
        if self._file is None:
            return Begun(None, 0)
        with self._file as file:
            self._file = None
            task, attempt, asyncs = MARK.unpack(os.pread(file.fileno(), MARK.size, 0))
        return Begun((task, attempt) if attempt else None, asyncs)
