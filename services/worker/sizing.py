"""How many children there are: what the TaskQueue says of the one queue that is served, else the worker's setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core import queue_manager as queue
from core import telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.worker.children import Children

_MOST: Final = 1024
log = telemetry.get_logger("worker.sizing")


class Sizing:
    """The number of children, looked up at registration and with the inventories, and changed without a restart."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._own = children.count

    async def look(self, tx: Any, queues: Sequence[str]) -> bool:
        """Bring the children to the wanted number; True when that is another one than before.

        A worker of several queues keeps its own number: they may say different ones.
        """
        said = await queue.queue_concurrency(tx, queues[0]) if len(queues) == 1 else None
        wanted = min(said or self._own, _MOST)
        before = self._children.count
        if wanted == before:
            return False
        log.info("another number of children is wanted", before=before, wanted=wanted)
        self._children.resize(wanted)
        return True
