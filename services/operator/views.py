"""What the planner looks at and what it answers: plain values, no behaviour that does anything.

Who fills them in reads in this order: pods, then the database, then the Deployment, each straight from its source (no
cache). The order carries the promise that no task is interrupted; see `plan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from services.operator.answer import TaskQueueStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

BROKEN: Final = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Reasons why a container waits that do not pass by themselves soon."""


class Demand(Protocol):
    """What a queue asks of its workers: `core.queue_manager.Demand`, by shape, so that nothing here needs a driver."""

    @property
    def paused(self) -> bool: ...
    @property
    def max_concurrent(self) -> int: ...
    @property
    def pending(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def unknown_types(self) -> Sequence[str]: ...
    @property
    def unknown_seconds(self) -> float | None: ...
    @property
    def announced_seconds(self) -> float | None: ...
    @property
    def announced_template(self) -> str: ...
    @property
    def capped(self) -> bool: ...
    @property
    def oldest_queued_seconds(self) -> float | None: ...
    @property
    def finished_minute(self) -> int: ...
    @property
    def run_seconds(self) -> float | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PodWorkerView:
    """A live worker process as PostgreSQL knows it."""

    id: UUID
    state: str  # alive, draining or cordoned
    running: int  # attempts that it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A worker pod that is neither Failed nor Succeeded (those count for no ReplicaSet: leave them out).

    `running`: the container `worker` has started and has not ended. `scheduled`: it has a node. `waiting_reason`: why
    that container, or an init container, waits ("" when it does not). `marked`: it carries our negative deletion cost.
    `workers`: its processes by pod uid; after a container's restart that can be two for a while.
    `template` is the hash of the template that it was made from; "" for a pod whose template carries none.
    `age` in seconds by the API server's creationTimestamp. `calm`: seconds since its container restarted last; `plan`
    knows and fills it in.
    """

    name: str
    uid: str
    ready: bool = False
    running: bool = False
    scheduled: bool = False
    deleting: bool = False
    waiting_reason: str = ""
    restarts: int = 0
    marked: bool = False
    age: float = 0.0
    calm: float = math.inf
    workers: tuple[PodWorkerView, ...] = ()
    template: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """The Deployment of a TaskQueue.

    `replicas` is spec.replicas, `existing` is status.replicas, `surge` how many pods more a rollout may have.
    `rolling`: status.observedGeneration is behind
    metadata.generation, or status.updatedReplicas < status.replicas; `replacing` is the latter without the former:
    pods of another template are on their way in, and one or more of those counted are a surge. `template` is
    the hash that new pods carry. `sizes`: how many pods the ReplicaSets of each template shall have, by its hash; None:
    nobody looked. `failure`: why no pod can be made (a quota, Pod Security), in the API server's words.
    """

    replicas: int
    resource_version: str
    rolling: bool = False
    replacing: bool = False
    existing: int = 0
    surge: int = 1
    sizes: Mapping[str, int] | None = None
    ready_replicas: int = 0
    template: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A TaskQueue and all that was found of it.

    `demand` None: the depth is not known, everything is held. `workers_known` False: the pods' `workers` could not be
    read, nobody is cordoned and nothing is lowered. `problems`: sentences on why the template cannot be used.
    `conflict`: a sentence on who else owns this queue or its Deployment. `settings_applied`: PostgreSQL has the
    spec's settings.
    """

    name: str
    generation: int = 0
    deleting: bool = False
    status: TaskQueueStatus = field(default_factory=TaskQueueStatus)
    demand: Demand | None = None
    workers_known: bool = True
    pods: tuple[PodView, ...] = ()
    deployment: DeploymentView | None = None
    problems: tuple[str, ...] = ()
    conflict: str = ""
    settings_applied: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """How many pods are wanted, why, and what kept it from being another number ("" when nothing did)."""

    replicas: int
    reason: str
    limited_by: str = ""  # min, max, concurrency, step, window, band, hold, depth, idle, manual, paused, broken
    wanted: int = 0  # before bounds, steps and windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A change of replicas, to be written by PATCH of the Deployment's `scale` at this resourceVersion.

    A 409 drops it: the next tick decides anew.
    """

    from_: int
    to: int
    reason: str
    resource_version: str

    def __str__(self) -> str:
        word = "ScaledUp" if self.to > self.from_ else "ScaledDown"
        return f"{word} {self.from_}→{self.to}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, in this order: `uncordon`, `unmark`, `cordon`, `mark`, `scale`, then status.

    `mark` and `unmark` are names of pods: set controller.kubernetes.io/pod-deletion-cost to -1000, or remove it. When
    one step fails, leave out the rest; the next tick plans anew. `soon`: come again in a second or two, something is
    under way. `purge`: cancel waiting tasks, a batch each tick. `finalize`: the pods are no longer waited for, remove
    the finalizer (with `purge` only once no task was left to cancel). `orphan`: take our ownerReference off Deployment
    and PDB before the finalizer goes.
    `trying`: the pods are wanted only to find out whether they run the types that nobody announced.
    `history`: keep it for the next tick; after a successful PATCH keep `history.scaled(...)` instead.
    """

    desired: Desired
    cordon: tuple[UUID, ...] = ()
    uncordon: tuple[UUID, ...] = ()
    mark: tuple[str, ...] = ()
    unmark: tuple[str, ...] = ()
    scale: Scale | None = None
    status: TaskQueueStatus = field(default_factory=TaskQueueStatus)
    history: History
    soon: bool = False
    finalize: bool = False
    purge: bool = False
    orphan: bool = False
    trying: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was before, for windows and rates. All times are seconds on one monotonic clock of this process."""

    proposals: tuple[tuple[float, int], ...] = ()  # what was wanted, within the stabilisation window
    ups: tuple[tuple[float, int], ...] = ()  # pods added, within a period
    downs: tuple[tuple[float, int], ...] = ()
    backlog: tuple[tuple[float, int], ...] = ()  # queued + running, within the last minute
    last_busy: float | None = None  # when there was a task last
    manual: int | None = None  # spec.scaling.replicas as seen last
    manual_since: float | None = None  # when it changed
    starts: tuple[float, ...] = ()  # seconds that the last pods took from creation to ready
    seen_ready: frozenset[str] = frozenset()  # pods (uid) whose start was measured or missed
    tried: tuple[str, float] | None = None  # the present template, and when a worker of it was seen alive last
    restarts: tuple[tuple[str, int, float], ...] = ()  # pods (uid) that restarted, how often, and when that was seen

    def scaled(self, change: Scale, now: float) -> History:
        """Return this with a change of replicas that the API server accepted at `now`."""
        step = (now, abs(change.to - change.from_))
        return (
            replace(self, ups=(*self.ups, step))
            if change.to > change.from_
            else replace(self, downs=(*self.downs, step))
        )
