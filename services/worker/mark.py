"""The memory in which a child notes which sync task it has begun: it tells a death's culprit from those behind it."""

from __future__ import annotations

import os
import tempfile
from typing import IO, TYPE_CHECKING

from taskflow_queue.protocol import MARK

if TYPE_CHECKING:
    from services.worker.holding import Key


class Mark:
    """One child's note. What is in it is the child's word, and only says something of the child's own tasks."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def open(self) -> int:
        """Make it; the descriptor is for the child to inherit."""
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `take`
        self._file.truncate(MARK.size)
        return self._file.fileno()

    def take(self) -> Key | None:
        """Return the sync task that began last, and forget the note: after the child's death."""
        if self._file is None:
            return None
        with self._file as file:
            self._file = None
            task, attempt = MARK.unpack(os.pread(file.fileno(), MARK.size, 0))
        return (task, attempt) if attempt else None
