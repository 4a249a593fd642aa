"""Puts together what the planner looks at: from the mirror, or straight from the sources.

The order of the second way is part of the promise that no task is interrupted: first the pods, then PostgreSQL, then
the Deployment, whose resourceVersion is the precondition of the write (see plan.py), and its ReplicaSets last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from core.errors import Conflict, Forbidden, NotFound
from services.operator import apply, objects, rollouts
from services.operator.answer import TaskQueueStatus
from services.operator.cluster import DEPLOYMENTS, PODS, REPLICASETS
from services.operator.mirror import key_of
from services.operator.observe import deployment_view, pod_views, workers_by_pod
from services.operator.spec import TaskQueueSpec, queue_name
from services.operator.views import QueueView

if TYPE_CHECKING:
    from services.operator.cluster import Json
    from services.operator.desk import Desk, Facts, Seen

LEAST_COUNT: Final = 10_000
log = telemetry.get_logger("operator")


def from_mirror(
    desk: Desk, seen: Seen, taskqueue: Json, spec: TaskQueueSpec, *, facts: Facts, problems: tuple[str, ...]
) -> QueueView:
    """What the watches and this tick's look at PostgreSQL say. Good for seeing whether there is something to do."""
    namespace, name = key = key_of(taskqueue)
    asked = queue_name(spec, name)
    live = desk.mirror.get(DEPLOYMENTS, (namespace, objects.name_of(name)))
    demand = None if facts.demand is None else facts.demand.get(asked)
    return QueueView(
        name=name,
        generation=taskqueue["metadata"]["generation"],
        deleting=bool(taskqueue["metadata"].get("deletionTimestamp")),
        status=status_of(taskqueue),
        demand=demand,
        workers_known=facts.workers is not None,
        pods=pod_views(facts.pods.get(key, ()), facts.workers or {}, desk.clock.now()),
        deployment=deployment_view(_own(live, taskqueue)),
        problems=problems,
        conflict=seen.conflict or seen.foreign or desk.rivals.of(namespace, objects.name_of(name)),
        settings_applied=seen.settled == taskqueue["metadata"]["generation"] and not seen.conflict,
    )


async def from_sources(
    desk: Desk, seen: Seen, taskqueue: Json, spec: TaskQueueSpec, *, problems: tuple[str, ...]
) -> QueueView:
    """The same, read now. Raises Unavailable when one of the sources does not answer: then nothing is done."""
    namespace, name = key_of(taskqueue)
    asked, deployment = queue_name(spec, name), objects.name_of(name)
    pods = await desk.cluster.items(PODS, namespace, selector=_selector(name))
    async with desk.term.transaction() as tx:
        demands = await queue.demand(tx, [asked], most=most([spec]))
        workers = workers_by_pod(await queue.pod_workers(tx))
    try:
        live = await desk.cluster.get(DEPLOYMENTS, namespace, deployment)
        desk.mirror.put(DEPLOYMENTS, live)
    except NotFound:
        live = None
    view = QueueView(
        name=name,
        generation=taskqueue["metadata"]["generation"],
        deleting=bool(taskqueue["metadata"].get("deletionTimestamp")),
        status=status_of(taskqueue),
        demand=next(iter(demands), None),
        pods=pod_views(pods, workers, desk.clock.now()),
        deployment=deployment_view(_own(live, taskqueue)),
        problems=problems,
        conflict=seen.conflict or seen.foreign or desk.rivals.of(namespace, deployment),
        settings_applied=seen.settled == taskqueue["metadata"]["generation"] and not seen.conflict,
    )
    if view.deployment is None or not rollouts.ongoing(view):
        return view
    sizes = await _sizes(desk, namespace, name)
    return replace(view, deployment=replace(view.deployment, sizes=sizes))


async def _sizes(desk: Desk, namespace: str, name: str) -> dict[str, int]:
    """How many pods the ReplicaSets of each template shall have, the oldest first.

    They are read last, because what they do follows the Deployment.
    """
    try:
        found = await desk.cluster.items(REPLICASETS, namespace, selector=_selector(name))
    except Forbidden as refused:  # the roles of an older chart: rollouts are waited for
        log.warning("ReplicaSets cannot be read", taskqueue=name, namespace=namespace, why=str(refused))
        return {}
    sizes: dict[str, int] = {}
    for one in sorted(found, key=lambda one: str(one["metadata"].get("creationTimestamp", ""))):
        template = objects.label_of(one)
        sizes[template] = sizes.get(template, 0) + int(one["spec"].get("replicas") or 0)
    return sizes


def _own(live: Json | None, taskqueue: Json) -> Json | None:
    """Leave out a Deployment of our name that is somebody else's: none of it is counted, waited for or scaled."""
    try:
        apply.refuse_foreign(live, taskqueue["metadata"]["uid"])
    except Conflict:
        return None
    return live


def most(specs: list[TaskQueueSpec]) -> int:
    """How far to count: beyond what maxReplicas of any queue can use, a larger number changes nothing."""
    usable = [spec.scaling.max_replicas * (spec.scaling.tasks_per_replica or spec.worker.concurrency) for spec in specs]
    return max([LEAST_COUNT, *usable])


def _selector(name: str) -> str:
    return ",".join(f"{label}={value}" for label, value in objects.selector(name).items())


def status_of(taskqueue: Json) -> TaskQueueStatus:
    """Read the status that is there."""
    try:
        return TaskQueueStatus.model_validate(taskqueue.get("status") or {})
    except ValueError:  # written by another version of the operator; ours will replace it
        return TaskQueueStatus()
