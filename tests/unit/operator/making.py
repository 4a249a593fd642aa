"""Demands, specs and views with what a test cares about; the rest is a quiet, healthy queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from services.operator.spec import TaskQueueSpec
from services.operator.views import DeploymentView, History, PodView, PodWorkerView

AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_SPACE = UUID(int=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    paused: bool = False
    max_concurrent: int = 0
    pending: int = 0
    queued: int = 0
    running: int = 0
    failed: int = 0
    unknown: int = 0
    unknown_types: tuple[str, ...] = ()
    unknown_seconds: float | None = None
    announced_seconds: float | None = None
    announced_template: str = ""
    capped: bool = False
    oldest_queued_seconds: float | None = None
    finished_minute: int = 0
    run_seconds: float | None = None


def spec_of(scaling: dict[str, Any] | None = None, **fields: Any) -> TaskQueueSpec:
    return TaskQueueSpec.model_validate({"scaling": scaling or {}, **fields})


def quick(**scaling: Any) -> TaskQueueSpec:
    """No window, no steps worth the name, four tasks a pod."""
    short = {"stabilizationSeconds": 0, "maxPods": 1000, "periodSeconds": 1}
    wide = {"scaleUp": {"maxPods": 1000}, "scaleDown": short, "idleToZeroSeconds": 0, "maxReplicas": 1000}
    return spec_of({**wide, **scaling})


def worker_of(name: str) -> UUID:
    return uuid5(_SPACE, name)


def pod(name: str, *, state: str = "alive", running: int = 0, ready: bool = True, **fields: Any) -> PodView:
    """A pod whose container runs and whose worker is registered."""
    worker = PodWorkerView(id=worker_of(name), state=state, running=running)
    known = {"uid": name, "running": True, "scheduled": True, "workers": (worker,), "ready": ready, "age": 60.0}
    return PodView(name=name, **{**known, **fields})


def starting(name: str, **fields: Any) -> PodView:
    """A pod that has no worker yet."""
    return PodView(name=name, uid=name, **{"scheduled": True, "age": 5.0, **fields})


def ordered(replicas: int, **fields: Any) -> DeploymentView:
    return DeploymentView(replicas=replicas, resource_version="1", **{"existing": replicas, **fields})


def fresh(**fields: Any) -> History:
    return History(**{"last_busy": 0.0, "manual": 1, **fields})
