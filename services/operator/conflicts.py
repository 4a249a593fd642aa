"""Who else wants to set the replicas of our Deployments: an HPA, or an object of KEDA.

There is one writer of `replicas`. While somebody else has a hand on a Deployment the operator only says so; the way
for both to live is mode External, with the HPA or KEDA aimed at the TaskQueue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import telemetry
from core.errors import Forbidden, NotFound, TaskFlowError
from services.operator.cluster import AUTOSCALERS, SCALED_OBJECTS, Cluster, Json, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.clock import Clock

EVERY_SECONDS: Final = 30.0
_WORDS: Final = {AUTOSCALERS: "HorizontalPodAutoscaler", SCALED_OBJECTS: "ScaledObject"}
log = telemetry.get_logger("operator")


class Rivals:
    """The autoscalers that aim at Deployments, looked up twice a minute."""

    def __init__(self, cluster: Cluster, clock: Clock, namespaces: Sequence[str | None]) -> None:
        self._cluster, self._clock, self._namespaces = cluster, clock, namespaces
        self._found: dict[tuple[str, str], str] = {}
        self._looked = float("-inf")
        self._absent: set[Kind] = set()

    async def refresh(self) -> None:
        """Look again when it is time. What cannot be read is taken as it was."""
        if self._clock.monotonic() - self._looked < EVERY_SECONDS:
            return
        self._looked = self._clock.monotonic()
        found: dict[tuple[str, str], str] = {}
        for kind in _WORDS:
            try:
                for namespace in self._namespaces:
                    for rival in await self._cluster.items(kind, namespace):
                        if target := _target(rival):
                            found[target] = (
                                f"{_WORDS[kind]} {rival['metadata']['name']} sets the replicas of {target[1]}"
                            )
                self._absent.discard(kind)
            except (NotFound, Forbidden) as unread:  # KEDA is not installed, or nobody let us look
                if kind not in self._absent:
                    log.info("autoscalers of a kind cannot be read", kind=kind.plural, why=str(unread))
                self._absent.add(kind)
            except TaskFlowError as away:
                log.warning("autoscalers could not be read", kind=kind.plural, error=str(away))
                return
        self._found = found

    def of(self, namespace: str, deployment: str) -> str:
        """A sentence on who else sets this Deployment's replicas; "" for nobody."""
        rival = self._found.get((namespace, deployment))
        return f"{rival}; aim it at the TaskQueue and use mode External, or remove it" if rival else ""


def _target(rival: Json) -> tuple[str, str] | None:
    aim = (rival.get("spec") or {}).get("scaleTargetRef") or {}
    if aim.get("kind", "Deployment") != "Deployment" or not aim.get("name"):
        return None
    return rival["metadata"]["namespace"], aim["name"]
