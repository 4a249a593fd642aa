"""The small cluster of `world` with a Deployment that replaces pods: it shares `replicas` out among ReplicaSets.

After the Deployment controller of Kubernetes 1.34: `sync.go` (scale), `rolling.go`, `deployment_util.go`, with a
maxUnavailable of 0. A pod of a template in `stuck` never starts; beyond `quota` no pod can be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.operator.views import DeploymentView
from tests.unit.operator.world import Pod, World

if TYPE_CHECKING:
    from random import Random

    from services.operator.spec import TaskQueueSpec


@dataclass
class ReplicaSet:
    template: str
    born: int
    size: int = 0
    desired: int = 0  # annotations: spec.replicas of the Deployment when it shared out last, and with its surge
    most: int = 0


class RollingWorld(World):
    def __init__(self, rand: Random, spec: TaskQueueSpec, *, surge: int, chaos: bool = True) -> None:
        super().__init__(rand, spec, chaos=chaos)
        self.template, self.surge = "t0", surge
        self.sets: dict[str, ReplicaSet] = {}
        self.stuck: set[str] = set()
        self.quota = 1000
        self.observed = (0, 0, "")  # replicas, surge and template that the controller has acted on
        self.replaced: list[str] = []  # busy pods that the rollout took away because a new one was ready

    def roll(self, template: str, *, stuck: bool = False) -> None:
        """Change the template, as the operator's apply does: with a surge by the number of pods."""
        self.template = template
        self.surge = max(1, -(-self.replicas // 4), self.surge if self._updated() < len(self.pods) else 1)
        self.version += 1
        if stuck:
            self.stuck.add(template)

    def of(self, template: str) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.template == template]

    def _updated(self) -> int:
        return len(self.of(self.template))

    def _kubelet(self, pod: Pod) -> None:
        if pod.template in self.stuck and not pod.running:
            pod.scheduled, pod.waiting = True, "ImagePullBackOff"
        else:
            super()._kubelet(pod)

    # --- kube-controller-manager

    def _replica_set(self) -> None:
        if not self.chaos or self.rand.random() < 0.6:
            self._control()
        for one in self.sets.values():
            self._keep(one)

    def _keep(self, one: ReplicaSet) -> None:
        mine = {pod.name for pod in self.of(one.template)}
        if len(mine) > one.size:
            picture = self.rand.choice(self.past) if self.chaos else self.past[-1]
            known = [seen for name, seen in picture.items() if name in mine]
            if len(known) < len(mine):
                return
            for seen in sorted(known, key=lambda seen: seen.order)[: len(mine) - one.size]:
                if self.pods[seen.name].holds:
                    self.interrupted.append(seen.name)
                self._lose(self.pods[seen.name])
        for _ in range(one.size - len(mine)):
            if len(self.pods) < self.quota:
                self._names += 1
                name = f"p{self._names}"
                self.pods[name] = Pod(name, born=self.step, template=one.template)

    def _control(self) -> None:
        if self.template not in self.sets:
            self.sets[self.template] = ReplicaSet(self.template, self.step)
        self.observed = (self.replicas, self.surge, self.template)
        active = [one for one in self.sets.values() if one.size]
        if any(one.desired != self.replicas for one in active):
            self._share(active)
        elif not self._grow():
            self._shrink()

    def _ready(self, one: ReplicaSet) -> int:
        return sum(pod.ready for pod in self.of(one.template))

    def _set(self, one: ReplicaSet, size: int) -> None:
        one.size, one.desired, one.most = size, self.replicas, self.replicas + self.surge

    def _share(self, active: list[ReplicaSet]) -> None:
        if len(active) == 1:
            self._set(active[0], self.replicas)
            return
        allowed = self.replicas + self.surge if self.replicas else 0
        change = allowed - sum(one.size for one in active)
        active.sort(key=lambda one: (-one.size, -one.born if change > 0 else one.born))
        sizes, added = [], 0
        for one in active:
            part = self._part(one, change, change - added)
            sizes.append(one.size + part)
            added += part
        sizes[0] = max(0, sizes[0] + change - added)
        for one, size in zip(active, sizes, strict=True):
            self._set(one, size)

    def _part(self, one: ReplicaSet, change: int, allowed: int) -> int:
        if not change or not allowed:
            return 0
        share = int(one.size * (self.replicas + self.surge) / one.most + 0.5) - one.size if self.replicas else -one.size
        return min(share, allowed) if change > 0 else max(share, allowed)

    def _grow(self) -> bool:
        new = self.sets[self.template]
        total = sum(one.size for one in self.sets.values())
        if new.size > self.replicas:
            self._set(new, self.replicas)
        elif new.size < self.replicas and total < self.replicas + self.surge:
            self._set(new, new.size + min(self.replicas + self.surge - total, self.replicas - new.size))
        else:
            return False
        return True

    def _shrink(self) -> None:
        new = self.sets[self.template]
        old = sorted((one for one in self.sets.values() if one is not new and one.size), key=lambda one: one.born)
        ready = {one.template: self._ready(one) for one in (*old, new)}
        most = sum(one.size for one in (*old, new)) - self.replicas - (new.size - ready[new.template])
        for one in old:
            gone = max(0, min(most, one.size - ready[one.template]))
            self._set(one, one.size - gone)
            most -= gone
        more = sum(ready.values()) - self.replicas
        for one in old:
            gone = max(0, min(more, one.size))
            self._set(one, one.size - gone)
            more -= gone

    def _deployment(self) -> DeploymentView:
        behind = self.observed != (self.replicas, self.surge, self.template)
        replacing = not behind and self._updated() < len(self.pods)
        return DeploymentView(
            replicas=self.replicas,
            resource_version=str(self.version),
            existing=len(self.pods),
            ready_replicas=sum(pod.ready for pod in self.pods.values()),
            rolling=behind or replacing,
            replacing=replacing,
            surge=self.surge,
            sizes={one.template: one.size for one in self.sets.values()},
            template=self.template,
        )
