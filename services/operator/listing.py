"""Which of the watched namespaces can be listed. Each is taken by itself: one that is lost stops no other.

A namespace is served while its TaskQueues, Deployments and pods could all be listed the last time. What could not be
listed is unknown, never gone: the mirror keeps it, nothing is decided on it, and it is tried again soon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from core import telemetry
from core.errors import TaskFlowError, Unavailable
from services.operator.cluster import TASKQUEUES
from services.operator.kopf_app import OURS
from services.operator.mirror import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.clock import Clock
    from services.operator.cluster import Cluster, Json, Kind
    from services.operator.mirror import Mirror

RELIST_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 10.0
NAMESPACE_SECONDS: Final = 20.0  # for the three lists of one namespace
_AT_ONCE: Final = 8
_ALL: Final = "*"
log = telemetry.get_logger("operator")


@dataclass(slots=True)
class _State:
    served: asyncio.Event = field(default_factory=asyncio.Event)
    due_at: float = float("-inf")
    why: str | None = None  # why it could not be listed the last time; None before the first try


class NamespaceLists:
    """The lists of one term. `None` among the namespaces is all of them, in one list."""

    def __init__(self, cluster: Cluster, mirror: Mirror, clock: Clock, namespaces: Sequence[str | None]) -> None:
        self._cluster, self._mirror, self._clock = cluster, mirror, clock
        self._states: dict[str | None, _State] = {namespace: _State() for namespace in namespaces}
        self.moved_at = clock.monotonic()

    def serves(self, namespace: str) -> bool:
        """Tell whether this namespace could be listed the last time."""
        state = self._states.get(None) or self._states.get(namespace)
        return state is not None and state.served.is_set()

    def serves_any(self) -> bool:
        """Tell whether there is a namespace that is served, for the probe."""
        return any(state.served.is_set() for state in self._states.values())

    async def until_served(self, namespace: str | None) -> None:
        """Wait until this namespace can be listed."""
        await self._states[namespace].served.wait()

    def renew(self, namespace: str | None) -> None:
        """Ask for new lists of a namespace: something may have been missed there."""
        self._states[namespace].due_at = float("-inf")

    def seconds_left(self) -> float:
        """Return in how many seconds `refresh` has something to do."""
        return max(0.0, min(state.due_at for state in self._states.values()) - self._clock.monotonic())

    async def refresh(self) -> list[str | None]:
        """List every namespace whose time has come; return those that could be listed now.

        That is each ten minutes, because a watch may miss something, and RETRY_SECONDS after a failure. Raises
        Unavailable when no namespace is served.
        """
        now = self._clock.monotonic()
        due = [namespace for namespace, state in self._states.items() if state.due_at <= now]
        limit = asyncio.Semaphore(_AT_ONCE)
        answers = await asyncio.gather(*(self._one(limit, namespace) for namespace in due))
        if not self.serves_any():
            reasons = {state.why for state in self._states.values() if state.why}
            raise Unavailable(f"no namespace can be served: {'; '.join(sorted(reasons))}")
        return [namespace for namespace, listed in zip(due, answers, strict=True) if listed]

    async def _one(self, limit: asyncio.Semaphore, namespace: str | None) -> bool:
        why = ""
        async with limit:
            try:
                async with asyncio.timeout(NAMESPACE_SECONDS):
                    await self._list(namespace)
            except TaskFlowError as refused:
                why = str(refused)
            except TimeoutError:
                why = f"its lists took more than {NAMESPACE_SECONDS:.0f} s"
        self.moved_at = self._clock.monotonic()
        self._note(namespace, why)
        return not why

    async def _list(self, namespace: str | None) -> None:
        """Bring the mirror to what is there, kind by kind. Raises what the API server says."""
        for kind in KINDS:
            self._mirror.listing(kind, namespace)
            selector = "" if kind is TASKQUEUES else OURS
            found = await self._items(kind, namespace, selector)
            self._mirror.replace(kind, found, namespace)

    async def _items(self, kind: Kind, namespace: str | None, selector: str) -> list[Json]:
        try:
            return await self._cluster.items(kind, namespace, selector=selector)
        except TaskFlowError as refused:
            raise Unavailable(f"{kind.plural} cannot be listed: {refused}") from refused

    def _note(self, namespace: str | None, why: str) -> None:
        state, name = self._states[namespace], namespace or _ALL
        state.due_at = self._clock.monotonic() + (RETRY_SECONDS if why else RELIST_SECONDS)
        telemetry.metrics().namespace_served.labels(name).set(not why)
        if why:
            if state.why != why:
                log.warning(
                    "a namespace cannot be served, trying again; if that lasts, give the operator its Role or take "
                    "the namespace out of operator.watchNamespaces",
                    namespace=name,
                    why=why,
                )
            state.served.clear()
        else:
            if state.why:
                log.info("a namespace is served again", namespace=name)
            state.served.set()
        state.why = why
