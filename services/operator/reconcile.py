"""One TaskQueue, once round: settings to PostgreSQL, Deployment, plan, deeds, status.

The plan is made on the mirror first. When it would do anything, everything is read anew from its source and the plan
made again, and only that second plan is carried out. So a watch that is late costs time, never a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import queue_manager as queue
from core import telemetry
from core.errors import Conflict
from services.operator import apply, looking, objects, ownership, report, reporting, windows, workload
from services.operator.events import Note
from services.operator.mirror import key_of
from services.operator.plan import plan
from services.operator.settling import settle
from services.operator.spec import FINALIZER, TaskQueueSpec, holds_deletion, queue_name

if TYPE_CHECKING:
    from services.operator.answer import TaskQueueStatus
    from services.operator.cluster import Json
    from services.operator.desk import Desk, Facts, Seen
    from services.operator.views import History, Plan, QueueView

LOOK_SECONDS: Final = 60.0  # everything is read from its source at least so often, whatever the watches say
log = telemetry.get_logger("operator")


async def reconcile(desk: Desk, seen: Seen, taskqueue: Json, facts: Facts) -> bool:
    """Go once round; True when it is worth coming again soon. Raises Unavailable, and Deposed when the term is over."""
    spec = TaskQueueSpec.model_validate(taskqueue["spec"])
    deleting = bool(taskqueue["metadata"].get("deletionTimestamp"))
    problems: tuple[str, ...] = ()
    changed = False
    try:
        if not await ownership.ours(desk, seen, taskqueue):
            return False
    except Conflict as written:
        log.debug("TaskQueue left for the next round", taskqueue=taskqueue["metadata"]["name"], why=str(written))
        return True
    await _guard_deletion(desk, taskqueue, spec, deleting=deleting)
    if not deleting:
        changed = await settle(desk, seen, taskqueue, spec)
        problems = await workload.ensure(desk, seen, taskqueue, spec)
    view = looking.from_mirror(desk, seen, taskqueue, spec, facts=facts, problems=problems)
    planned = _plan(desk, seen, spec, view)
    now = desk.clock.monotonic()
    if _acts(planned) or now - seen.looked_at >= LOOK_SECONDS:
        view = await looking.from_sources(desk, seen, taskqueue, spec, problems=problems)
        planned, seen.looked_at = _plan(desk, seen, spec, view), now
    seen.history = planned.history
    done = await _carry_out(desk, seen, taskqueue, spec, planned)
    if done is None:
        return True
    if not planned.finalize:
        await reporting.write(desk, seen, taskqueue, view.status, done)
    return planned.soon or changed


async def _guard_deletion(desk: Desk, taskqueue: Json, spec: TaskQueueSpec, *, deleting: bool) -> None:
    """Hold a deletion back only where the operator has to act first.

    The finalizer that older operators put on TaskQueues with Drain is taken off, from those being deleted, too: nothing
    is waited for there. One that orphans and is being deleted keeps the finalizer until the ownership is off.
    """
    about = taskqueue["metadata"]
    wanted = holds_deletion(spec)
    if (FINALIZER in about["finalizers"]) == wanted or (deleting and spec.deletion_policy != "Drain"):
        return
    try:
        await apply.finalizer(desk.cluster, *key_of(taskqueue), about["uid"], wanted=wanted)
    except Conflict as written:
        log.debug("finalizer left for the next round", taskqueue=about["name"], why=str(written))


def _plan(desk: Desk, seen: Seen, spec: TaskQueueSpec, view: QueueView) -> Plan:
    now, at = desk.clock.monotonic(), desk.clock.now()
    history = seen.history or _restored(view, now, desk)
    seen.history = history
    return plan(spec, view, history, now=now, at=at)


def _restored(view: QueueView, now: float, desk: Desk) -> History:
    ordered = view.deployment.replicas if view.deployment else 0
    return windows.restored(view.status, ordered, now, desk.clock.now())


def _acts(planned: Plan) -> bool:
    deeds = (planned.cordon, planned.uncordon, planned.mark, planned.unmark, planned.scale)
    return any(deeds) or planned.finalize or planned.purge or planned.orphan


async def _carry_out(
    desk: Desk, seen: Seen, taskqueue: Json, spec: TaskQueueSpec, planned: Plan
) -> TaskQueueStatus | None:
    """Do what is planned, in the order that the planner gives; the status to report, None when a step was refused."""
    namespace, name = key_of(taskqueue)
    try:
        await _turn_workers(desk, namespace, planned)
        status = planned.status
        if planned.scale is not None:
            await apply.scale(desk.cluster, namespace, objects.name_of(name), planned.scale)
            seen.history = planned.history.scaled(planned.scale, desk.clock.monotonic())
            status = report.scaled(status, planned.scale, desk.clock.now())
            change = planned.scale
            _tell(desk, taskqueue, change.from_, change.to, change.reason)
        if planned.purge and await _purge(desk, spec, name):
            return status
        if planned.orphan:
            await apply.disown(desk.cluster, namespace, objects.name_of(name), taskqueue["metadata"]["uid"])
        if planned.finalize:
            await _let_go(desk, taskqueue, spec)
    except Conflict as changed:
        # Somebody wrote in between: the decision was made on what is no more, so it is dropped.
        log.info("decision dropped", taskqueue=name, namespace=namespace, why=str(changed))
        return None
    return status


async def _turn_workers(desk: Desk, namespace: str, planned: Plan) -> None:
    if planned.uncordon:
        async with desk.term.transaction() as tx:
            await queue.uncordon(tx, planned.uncordon)
    await apply.mark(desk.cluster, namespace, planned.unmark, cost=None)
    if planned.cordon:
        async with desk.term.transaction() as tx:
            await queue.cordon(tx, planned.cordon)
    await apply.mark(desk.cluster, namespace, planned.mark, cost=apply.COST)


def _tell(desk: Desk, taskqueue: Json, before: int, after: int, reason: str) -> None:
    word = "ScaledUp" if after > before else "ScaledDown"
    about = taskqueue["metadata"]
    log.info(word, taskqueue=about["name"], namespace=about["namespace"], before=before, after=after, why=reason)
    desk.events.say(taskqueue, Note(reason=word, text=reason, before=before, after=after))


async def _purge(desk: Desk, spec: TaskQueueSpec, name: str) -> int:
    async with desk.term.transaction() as tx:
        return await queue.purge_queue(tx, queue_name(spec, name))


async def _let_go(desk: Desk, taskqueue: Json, spec: TaskQueueSpec) -> None:
    """Forget the TaskQueue in PostgreSQL, then let the API server remove it."""
    about = taskqueue["metadata"]
    async with desk.term.transaction() as tx:
        await queue.release_taskqueue(tx, queue_name(spec, about["name"]), about["uid"])
    await apply.finalizer(desk.cluster, *key_of(taskqueue), about["uid"], wanted=False)
    log.info("TaskQueue let go", taskqueue=about["name"], namespace=about["namespace"])
