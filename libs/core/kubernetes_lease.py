"""An election by a Lease of Kubernetes, by client-go's algorithm.

Only a change of the Lease that one watches oneself, on one's own monotonic clock, says anything; the times in it are
for people. Every write names the resourceVersion that was read, so of two that write together one is refused.
Who writes to it needs get, create and update of leases in its namespace. It only makes takeovers rare and quick; the
epoch in PostgreSQL makes them safe.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from core import clock as clocks
from core import kube, telemetry
from core.config import settings
from core.errors import Unavailable
from core.leadership import DURATION, RENEW_DEADLINE, RETRY
from core.pool import heed_cancel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

_ROUNDS: Final = 3  # a Lease that changes under our hands so often in one attempt is left for the next
log = telemetry.get_logger("leadership")


@dataclass(frozen=True, slots=True)
class _Found:
    """A Lease as it was read or written last; `body` is the whole of it, so that foreign labels survive."""

    body: kube.Json

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.body.get("spec") or {}

    @property
    def holder(self) -> str:
        return self.spec.get("holderIdentity") or ""

    @property
    def transitions(self) -> int:
        return int(self.spec.get("leaseTransitions") or 0)


class KubernetesLease:
    """One candidate's view of a Lease. An `Election` of core.leadership."""

    def __init__(
        self,
        api: Any,
        namespace: str,
        name: str,
        holder: str,
        *,
        clock: clocks.Clock = clocks.system,
        duration: float = DURATION,
    ) -> None:
        """Take an open client (core.kube), the Lease's place, and a `holder` that no other process ever has.

        `duration` is how many seconds a Lease must stand still before it may be taken.
        """
        self._api = api
        self._namespace, self._name, self._holder = namespace, name, holder
        self._clock = clock
        self._duration = duration
        self._mine: _Found | None = None  # as we wrote it last, while we are chosen
        self._seen: tuple[Mapping[str, Any], float] | None = None  # another's, and since when it stands still
        self._away = False

    async def campaign(self) -> None:
        """Come back when chosen; errors of the API server are waited out."""
        while not await self.attempt():
            heed_cancel()
            await self._clock.sleep(RETRY * (0.9 + 0.2 * self._clock.rand()))

    async def attempt(self) -> bool:
        """Look once, and take the Lease if it is free."""
        try:
            async with asyncio.timeout(RENEW_DEADLINE):
                chosen = await self._take()
        except (Unavailable, TimeoutError) as away:
            if not self._away:
                log.warning("the Lease cannot be reached, standing by", lease=self._name, error=str(away))
            self._away = True
            return False
        self._away = False
        return chosen

    async def renew(self) -> bool:
        """Stay chosen; False when another is by now. Raises Unavailable when nobody can tell.

        A Lease that was deleted or emptied is made or filled again: it is lost only to one who takes it.
        """
        try:
            async with asyncio.timeout(RENEW_DEADLINE):
                return await self._renew()
        except TimeoutError as slow:
            message = "the Kubernetes API did not answer in time"
            raise Unavailable(message) from slow

    async def release(self) -> None:
        """Let the next one have it at once. Never raises."""
        try:
            async with asyncio.timeout(RENEW_DEADLINE):
                found = self._mine or await self._read()
                for _ in range(_ROUNDS):
                    if found is None or found.holder != self._holder:
                        return
                    if await self._write(found, holder="") is not None:
                        return
                    found = await self._read()
        except (Unavailable, TimeoutError) as away:
            log.warning("the Lease could not be given back; if ours, it runs out", lease=self._name, error=str(away))
        finally:
            self._mine = None

    async def _take(self) -> bool:
        found = await self._read()
        if not self._free(found):
            return False
        self._mine = await (self._create() if found is None else self._write(found, holder=self._holder))
        self._seen = None
        return self._mine is not None

    def _free(self, found: _Found | None) -> bool:
        if found is None or found.holder in {"", self._holder}:
            return True
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != found.spec:
            self._seen = found.spec, now
        # Our own duration, not the one that the Lease names: a stranger could write a year into it.
        return now - self._seen[1] >= self._duration

    async def _renew(self) -> bool:
        found = self._mine or await self._read()
        for _ in range(_ROUNDS):
            if found is not None and found.holder not in {"", self._holder}:
                self._mine = None
                return False
            written = await (self._create() if found is None else self._write(found, holder=self._holder))
            if written is not None:
                self._mine = written
                return True
            found = await self._read()
        message = "the Lease changes under our hands"
        raise Unavailable(message)

    @property
    def _all(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    async def _read(self) -> _Found | None:
        status, body = await kube.ask(self._api, "GET", f"{self._all}/{self._name}")
        return None if _refused(status, body, HTTPStatus.NOT_FOUND) else _Found(body)

    async def _create(self) -> _Found | None:
        """Make the Lease, ours; None when somebody was faster."""
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": self._spec(self._mine, self._holder),
        }
        status, made = await kube.ask(self._api, "POST", self._all, body)
        return None if _refused(status, made, HTTPStatus.CONFLICT) else _Found(made)

    async def _write(self, found: _Found, *, holder: str) -> _Found | None:
        """Replace the Lease as it was `found`; None when it has changed or gone since."""
        body = {**found.body, "spec": {**found.spec, **self._spec(found, holder)}}
        status, written = await kube.ask(self._api, "PUT", f"{self._all}/{self._name}", body)
        return None if _refused(status, written, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND) else _Found(written)

    def _spec(self, before: _Found | None, holder: str) -> kube.Json:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = before is not None and before.holder == holder
        turns = before.transitions if before is not None else 0
        return {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._duration)) if holder else 1,
            "acquireTime": (before.spec.get("acquireTime") or now) if same and before is not None else now,
            "renewTime": now,
            "leaseTransitions": turns + (before is not None and holder not in {"", before.holder}),
        }


def identity(holder: UUID) -> str:
    """Return what a process writes into a Lease: its pod's or machine's name for people, and what makes it unique."""
    return f"{settings.pod_name or socket.gethostname()}_{holder}"


def _refused(status: int, body: Mapping[str, Any], *expected: int) -> bool:
    """Tell whether the answer is one of the `expected` refusals. Raises Unavailable for any other."""
    if status in expected:
        return True
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        message = f"the Kubernetes API refused the Lease: {status} {body.get('message')}"
        raise Unavailable(message)
    return False
