"""What every step of the operator has at hand while it leads, and what it remembers of a TaskQueue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.clock import Clock
    from core.leadership import Term
    from core.queue_manager import Demand
    from services.operator.cluster import Cluster, Json
    from services.operator.conflicts import Rivals
    from services.operator.events import Events
    from services.operator.mirror import Key, Mirror
    from services.operator.policy import Rules
    from services.operator.views import History, PodWorkerView


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One term's tools.

    `fragment` is the part of a worker's pod that is the same for all (the chart's), `image` the worker's when nobody
    names one, `rules` what the installation lets templates use. `release` is the release whose
    operator this is, as namespace/name.
    """

    cluster: Cluster
    term: Term
    mirror: Mirror
    rivals: Rivals
    events: Events
    clock: Clock
    fragment: Json
    image: str
    rules: Rules
    release: str


@dataclass(slots=True)
class Seen:
    """What is remembered of one TaskQueue, by uid, for as long as the term lasts."""

    history: History | None = None
    settled: int | None = None  # the generation whose settings PostgreSQL has
    settled_at: float = float("-inf")
    conflict: str = ""  # why PostgreSQL did not take the settings
    told: str = ""  # why another release has it, as it was told last
    told_at: float = float("-inf")
    foreign: str = ""  # why the Deployment of our name is not ours
    applied: tuple[str, str] = ("", "")  # the template's hash and the deletion policy of our last apply
    applied_digest: str = ""  # of the Deployment's spec after it
    applied_at: float = float("-inf")
    refused: tuple[str, ...] = ()  # why the API server did not take the template
    refused_for: str = ""
    refused_at: float = float("-inf")
    looked_at: float = float("-inf")  # when everything was read straight from its source
    status_at: float = float("-inf")
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one tick knows of all queues. None: it could not be read, everything is held."""

    demand: Mapping[str, Demand] | None
    workers: Mapping[str, tuple[PodWorkerView, ...]] | None
    pods: Mapping[Key, Sequence[Json]] = field(default_factory=dict)
