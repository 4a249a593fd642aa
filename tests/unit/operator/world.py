"""A cluster small enough to think about: pods, a ReplicaSet, workers with tasks, and an operator that may die anywhere.

Everybody is late. The kubelet tells of readiness some steps later, the ReplicaSet sees pods as they were some steps
ago, a worker hears of a cordon with its next beat, the operator reads pods, database and Deployment at three different
moments, and its writes come one by one. Only PostgreSQL is exact: a cordon waits for the claims that are under way.

Only two things have a bound, because nothing could hold without: from reading the pods to what the ReplicaSet makes of
it pass fewer steps than a container needs from its start to its first claim.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from services.operator import windows
from services.operator.answer import TaskQueueStatus
from services.operator.plan import plan
from services.operator.views import DeploymentView, History, Plan, PodView, PodWorkerView, QueueView, Scale
from tests.unit.operator.making import AT, Asked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from services.operator.spec import TaskQueueSpec

BOOT = 8  # steps from the start of a container to its registration
LATE = 2  # steps that the ReplicaSet's picture of the pods may be old


@dataclass
class Process:
    id: UUID
    state: str = "alive"  # in PostgreSQL
    told: bool = False  # whether it has heard that it is cordoned
    tasks: list[int] = field(default_factory=list)  # steps that each still runs
    claiming: int = 0  # claims under way
    dead_in: int | None = None


@dataclass
class Pod:
    name: str
    scheduled: bool = False
    booting: int | None = None  # steps left until it registers; None: the container does not run
    processes: list[Process] = field(default_factory=list)
    waiting: str = ""
    says_ready: bool = False  # what the kubelet would hear
    ready: bool = False  # what the API server knows
    cost: int = 0
    restarts: int = 0
    born: int = 0
    template: str = ""

    @property
    def live(self) -> Process | None:
        return next((one for one in self.processes if one.dead_in is None), None)

    @property
    def running(self) -> bool:
        return self.booting is not None or self.live is not None

    @property
    def holds(self) -> bool:
        return any(one.tasks or one.claiming for one in self.processes if one.dead_in is None)


@dataclass(frozen=True)
class Seen:
    """A pod as the ReplicaSet saw it."""

    name: str
    scheduled: bool
    running: bool
    ready: bool
    cost: int
    born: int

    @property
    def order(self) -> tuple[bool, bool, bool, int, int]:
        return self.scheduled, self.running, self.ready, self.cost, -self.born


class World:
    """Time goes in steps; `interrupted` names the pods that were taken away by a scale-down while they held a task."""

    def __init__(self, rand: Random, spec: TaskQueueSpec, *, chaos: bool = True) -> None:
        self.rand, self.spec, self.chaos = rand, spec, chaos
        self.step = 0
        self.replicas = 0
        self.version = 1
        self.pods: dict[str, Pod] = {}
        self.waiting = 0
        self.length = 30  # the longest a task runs
        self.interrupted: list[str] = []
        self.past: list[dict[str, Seen]] = []
        self.status = TaskQueueStatus()
        self.history: History | None = None
        self.deed: Iterator[None] | None = None
        self.zombies: list[tuple[int, Scale]] = []
        self.plans: list[Plan] = []
        self._names = 0

    # --- what happens by itself

    def tick(self) -> None:
        self.step += 1
        for pod in list(self.pods.values()):
            self._kubelet(pod)
            self._worker(pod)
        if self.chaos:
            self._mishaps()
        self.past = [*self.past, self._picture()][-LATE - 1 :]
        self._replica_set()
        if self.chaos and self.zombies and self.rand.random() < 0.2:
            self._patch(self.zombies.pop()[1])
        self._operator()

    def _kubelet(self, pod: Pod) -> None:
        if not pod.scheduled:
            pod.scheduled = self.rand.random() < 0.7
        elif not pod.running and not (pod.waiting and self.rand.random() < 0.9):
            if self.rand.random() < 0.5:
                pod.booting, pod.waiting = BOOT + self.rand.randrange(4), ""
        elif pod.booting is not None:
            pod.booting -= 1
            if pod.booting <= 0:
                pod.booting = None
                pod.processes.append(Process(UUID(int=self.rand.getrandbits(128))))
        live = pod.live
        pod.says_ready = live is not None and not (live.told and not pod.holds)
        if pod.ready != pod.says_ready and self.rand.random() < 0.5:
            pod.ready = pod.says_ready

    def _worker(self, pod: Pod) -> None:
        for one in pod.processes:
            if one.dead_in is not None:
                one.dead_in -= 1
        buried = [one for one in pod.processes if one.dead_in is not None and one.dead_in <= 0]
        self.waiting += sum(len(one.tasks) for one in buried)
        pod.processes = [one for one in pod.processes if one not in buried]
        live = pod.live
        if live is None:
            return
        live.tasks = [left - 1 for left in live.tasks if left > 1]
        if self.rand.random() < 0.3:
            live.told = live.state == "cordoned"
        while live.claiming and self.rand.random() < 0.5:
            self._commit(live)
        # It need not have heard that the cordon is over: a hint may bring it to claim at once.
        if live.state == "alive" and self.waiting and len(live.tasks) + live.claiming < 4 and self.rand.random() < 0.7:
            live.claiming += 1

    def _commit(self, live: Process) -> None:
        """A claim that is under way comes back, with a task if there is one yet."""
        live.claiming -= 1
        if self.waiting:
            self.waiting -= 1
            live.tasks.append(1 + self.rand.randrange(self.length))

    def _mishaps(self) -> None:
        pods = list(self.pods.values())
        if pods and self.rand.random() < 0.02:
            self._crash(self.rand.choice(pods))
        if pods and self.rand.random() < 0.05:
            self.rand.choice(pods).ready = False  # a probe that came too late on a busy node
        if pods and self.rand.random() < 0.01:
            self._lose(self.rand.choice(pods))  # evicted: no scale-down
        if self.rand.random() < 0.05:
            self.version += 1  # somebody wrote to the Deployment

    def _crash(self, pod: Pod) -> None:
        pod.booting = None
        if pod.live:
            pod.live.dead_in = self.rand.randrange(1, 12)
            pod.restarts += 1
        pod.waiting = self.rand.choice(["CrashLoopBackOff", ""])

    def _lose(self, pod: Pod) -> None:
        self.waiting += sum(len(one.tasks) for one in pod.processes)
        del self.pods[pod.name]

    def _picture(self) -> dict[str, Seen]:
        return {
            pod.name: Seen(pod.name, pod.scheduled, pod.running, pod.ready, pod.cost, pod.born)
            for pod in self.pods.values()
        }

    def _replica_set(self) -> None:
        """Delete what is too much, in the order of a ReplicaSet, by a picture that may be old; make what is missing."""
        if len(self.pods) > self.replicas:
            picture = self.rand.choice(self.past) if self.chaos else self.past[-1]
            known = [seen for name, seen in picture.items() if name in self.pods]
            if len(known) < len(self.pods):
                return  # it saw fewer than there are, so nothing is too much yet
            for seen in sorted(known, key=lambda seen: seen.order)[: len(self.pods) - self.replicas]:
                if self.pods[seen.name].holds:
                    self.interrupted.append(seen.name)
                self._lose(self.pods[seen.name])
        while len(self.pods) < self.replicas:
            self._names += 1
            self.pods[f"p{self._names}"] = Pod(f"p{self._names}", born=self.step)

    # --- the operator

    def _operator(self) -> None:
        if self.deed is None:
            if self.rand.random() < 0.5:
                return
            self.deed = self._round()
        if self.chaos and self.rand.random() < 0.02:
            self._restart()
            return
        if next(self.deed, "over") == "over":
            self.deed = None

    def _restart(self) -> None:
        """The operator dies; a write of it may still be on its way. The next one begins by applying its epoch."""
        if self.plans and self.plans[-1].scale and self.rand.random() < 0.5:
            self.zombies.append((self.step, self.plans[-1].scale))
        self.history, self.deed = None, None
        self.version += 1

    def _round(self) -> Iterator[None]:
        pods = [(pod, self._pod(pod)) for pod in self.pods.values()]
        if self.rand.random() < 0.3:
            yield
        views = tuple(replace(view, workers=self._workers(pod)) for pod, view in pods)
        demand = self._demand()
        if self.rand.random() < 0.3:
            yield
        now = float(self.step)
        if self.history is None:
            self.history = windows.restored(self.status, self.replicas, now, AT)
        view = QueueView(name="q", demand=demand, pods=views, deployment=self._deployment(), status=self.status)
        made = plan(self.spec, view, self.history, now=now, at=AT)
        self.history = made.history
        self.plans.append(made)
        self._turn(made.uncordon, "cordoned", "alive")
        self._land(made.cordon)
        self._turn(made.cordon, "alive", "cordoned")
        if (made.cordon or made.uncordon) and self.rand.random() < 0.3:
            yield
        for names, cost in ((made.unmark, 0), (made.mark, -1000)):
            self._cost(names, cost)
        if made.scale and self.rand.random() < 0.5:
            yield
        if made.scale and self._patch(made.scale):
            self.history = self.history.scaled(made.scale, now)
        self.status = made.status
        yield

    def _deployment(self) -> DeploymentView:
        return DeploymentView(replicas=self.replicas, resource_version=str(self.version), existing=len(self.pods))

    def _pod(self, pod: Pod) -> PodView:
        return PodView(
            name=pod.name,
            uid=pod.name,
            ready=pod.ready,
            running=pod.running,
            scheduled=pod.scheduled,
            waiting_reason=pod.waiting,
            restarts=pod.restarts,
            marked=pod.cost < 0,
            age=float(self.step - pod.born),
            template=pod.template,
        )

    def _workers(self, pod: Pod) -> tuple[PodWorkerView, ...]:
        return tuple(PodWorkerView(id=one.id, state=one.state, running=len(one.tasks)) for one in pod.processes)

    def _demand(self) -> Asked | None:
        if self.chaos and self.rand.random() < 0.05:
            return None
        running = sum(len(one.tasks) for pod in self.pods.values() for one in pod.processes)
        return Asked(queued=self.waiting, running=running)

    def _land(self, workers: tuple[UUID, ...]) -> None:
        for live in filter(None, (pod.live for pod in self.pods.values())):
            while live.id in workers and live.claiming:
                self._commit(live)

    def _turn(self, workers: tuple[UUID, ...], before: str, after: str) -> None:
        for pod in self.pods.values():
            for one in pod.processes:
                if one.id in workers and one.state == before:
                    one.state = after

    def _cost(self, names: tuple[str, ...], cost: int) -> None:
        for name in names:
            if name in self.pods:
                self.pods[name].cost = cost

    def _patch(self, change: Scale) -> bool:
        if change.resource_version != str(self.version):
            return False
        self.replicas = change.to
        self.version += 1
        return True
