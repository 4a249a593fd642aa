"""The watches of all namespaces, each in a thread of its own: what ends one of them stops no other.

kopf ends all of its watches when the API server refuses one. So each namespace has a kopf of its own. It is started
when the namespace can be listed, because kopf looks only once for the kinds that it watches, and again when it ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from core import telemetry
from core.pool import heed_cancel
from services.operator.kopf_app import Watches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.clock import Clock
    from services.operator.loop import ScalingLoop

AGAIN_SECONDS: Final = 5.0
MOST_SECONDS: Final = 60.0
SETTLE_SECONDS: Final = 15.0
STEADY_SECONDS: Final = 300.0  # a watch that lasted for so long begins with a short pause again
log = telemetry.get_logger("operator")


class NamespaceWatches:
    """Keeps a watch in every namespace that is served."""

    def __init__(self, namespaces: Sequence[str | None], loop: ScalingLoop, clock: Clock) -> None:
        self._namespaces, self._loop, self._clock = namespaces, loop, clock

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces:
                group.create_task(self._keep(namespace), name=f"watching {namespace or 'all namespaces'}")

    async def _keep(self, namespace: str | None) -> None:
        pause = AGAIN_SECONDS
        while True:
            await self._loop.lists.until_served(namespace)
            began = self._clock.monotonic()
            why = await self._watch(namespace)
            if self._clock.monotonic() - began >= STEADY_SECONDS:
                pause = AGAIN_SECONDS
            log.warning("the watch of a namespace ended, starting it again", namespace=namespace or "*", why=why,
                        seconds=pause)  # fmt: skip
            self._loop.renew(namespace)  # what changes meanwhile is not heard
            heed_cancel()
            await self._clock.sleep(pause)
            pause = min(2 * pause, MOST_SECONDS)

    async def _watch(self, namespace: str | None) -> str:
        """Watch one namespace until its watch ends; why it did."""
        watches = Watches([namespace] if namespace else None, self._loop.heard)
        watches.start()
        try:
            # What went between the list that let the watch begin and kopf's own first list is heard of by nobody.
            done, _ = await asyncio.wait({watches.ended}, timeout=SETTLE_SECONDS)
            if not done:
                self._loop.renew(namespace)
                await asyncio.wait({watches.ended})
        finally:
            await watches.stop()
        failed = watches.ended.exception()
        return f"{type(failed).__name__}: {failed}" if failed else "kopf ended by itself"
