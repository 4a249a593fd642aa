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
        # By kind and namespace, because what cannot be read in one place says nothing about another.
        self._found: dict[tuple[Kind, str | None], dict[tuple[str, str], str]] = {}
        self._looked = float("-inf")
        self._absent: set[tuple[Kind, str | None]] = set()

    async def refresh(self) -> None:
        """Look again when it is time. What cannot be read is taken as it was."""
        if self._clock.monotonic() - self._looked < EVERY_SECONDS:
            return
        self._looked = self._clock.monotonic()
        for namespace in self._namespaces:
            for kind in _WORDS:
                if not await self._look(kind, namespace):
                    break

    async def _look(self, kind: Kind, namespace: str | None) -> bool:
        """Read one kind in one namespace; False when the API server does not answer for it."""
        place = (kind, namespace)
        try:
            rivals = await self._cluster.items(kind, namespace)
        except NotFound as absent:  # KEDA is not installed
            self._found.pop(place, None)
            self._say_absent(place, absent)
        except Forbidden as refused:  # nobody let us look: whether what was there is still there is not known
            self._say_absent(place, refused)
        except TaskFlowError as away:
            log.warning("autoscalers could not be read", kind=kind.plural, namespace=namespace or "*", error=str(away))
            return False
        else:
            self._absent.discard(place)
            self._found[place] = {
                target: f"{_WORDS[kind]} {rival['metadata']['name']} sets the replicas of {target[1]}"
                for rival in rivals
                if (target := _target(rival))
            }
        return True

    def _say_absent(self, place: tuple[Kind, str | None], why: TaskFlowError) -> None:
        if place not in self._absent:
            kind, namespace = place
            log.info("autoscalers of a kind cannot be read", kind=kind.plural, namespace=namespace or "*", why=str(why))
        self._absent.add(place)

    def of(self, namespace: str, deployment: str) -> str:
        """A sentence on who else sets this Deployment's replicas; "" for nobody."""
        targets = (found.get((namespace, deployment)) for found in self._found.values())
        rival = next(filter(None, targets), "")
        return f"{rival}; aim it at the TaskQueue and use mode External, or remove it" if rival else ""


def _target(rival: Json) -> tuple[str, str] | None:
    aim = (rival.get("spec") or {}).get("scaleTargetRef") or {}
    if aim.get("kind", "Deployment") != "Deployment" or not aim.get("name"):
        return None
    return rival["metadata"]["namespace"], aim["name"]
