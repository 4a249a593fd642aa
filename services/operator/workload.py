"""A TaskQueue's Deployment and PodDisruptionBudget, as the API server shall have them.

Applied when the template changed, when somebody else changed the Deployment, once by every new operator (whose epoch
in it makes its predecessor's writes fail), and every ten minutes. A template that we or the API server refuse leaves
what is there as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core import telemetry
from core.errors import Conflict, Forbidden, Invalid, NotFound
from services.operator import apply, objects, policy
from services.operator.cluster import DEPLOYMENTS
from services.operator.mirror import DIGEST, digest, key_of

if TYPE_CHECKING:
    from services.operator.cluster import Json
    from services.operator.desk import Desk, Seen
    from services.operator.spec import TaskQueueSpec

AGAIN_SECONDS: Final = 600.0
REFUSED_SECONDS: Final = 60.0  # the server may take tomorrow what it refuses today: a quota, a webhook
_HEAL_SECONDS: Final = 10.0  # two who undo each other's changes do so no faster
log = telemetry.get_logger("operator")


async def ensure(desk: Desk, seen: Seen, taskqueue: Json, spec: TaskQueueSpec) -> tuple[str, ...]:
    """Bring Deployment and budget to what the spec says; sentences on why that cannot be, none when it is so.

    Raises Unavailable, and Conflict when somebody wrote at the same time.
    """
    if seen.conflict:  # the queue is another TaskQueue's
        return ()
    if problems := policy.problems(spec.worker.template, desk.rules):
        return problems
    namespace, name = key_of(taskqueue)
    key = (namespace, objects.name_of(name))
    manifest = _manifest(desk, taskqueue, spec)
    wanted = manifest["metadata"]["annotations"][objects.HASH_ANNOTATION]
    now = desk.clock.monotonic()
    if seen.refused_for == wanted and now - seen.refused_at < REFUSED_SECONDS:
        return seen.refused
    if not _due(desk, seen, key, (wanted, spec.deletion_policy), now):
        return ()
    try:
        live = await _live(desk, key)
        apply.refuse_foreign(live, taskqueue["metadata"]["uid"])
    except Conflict as foreign:
        seen.foreign = str(foreign)
        return ()
    seen.foreign = ""
    manifest["metadata"]["annotations"][objects.RELEASE_ANNOTATION] = desk.release
    manifest["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = objects.surge(live)
    if not _runs_unlabelled(live, wanted):
        manifest["spec"]["template"] = objects.labelled(manifest["spec"]["template"])
    try:
        made = await apply.deployment(desk.cluster, manifest, live)
        await apply.budget(desk.cluster, _budget(desk, taskqueue, spec))
    except (Invalid, Forbidden) as refused:
        log.warning("a template was refused", taskqueue=name, namespace=namespace, why=str(refused))
        seen.refused, seen.refused_for, seen.refused_at = (str(refused),), wanted, now
        return seen.refused
    seen.refused, seen.refused_for = (), ""
    desk.mirror.put(DEPLOYMENTS, made)
    seen.applied, seen.applied_digest, seen.applied_at = (wanted, spec.deletion_policy), digest(made["spec"]), now
    log.info("Deployment applied", taskqueue=name, namespace=namespace, template=wanted)
    return ()


def _due(desk: Desk, seen: Seen, key: tuple[str, str], wanted: tuple[str, str], now: float) -> bool:
    there = desk.mirror.get(DEPLOYMENTS, key)
    if seen.applied != wanted or now - seen.applied_at >= AGAIN_SECONDS:
        return True
    drifted = there is None or there[DIGEST] != seen.applied_digest
    return drifted and now - seen.applied_at >= _HEAL_SECONDS


def _runs_unlabelled(live: Json | None, wanted: str) -> bool:
    """Tell whether an older operator applied this very template: its pods stay as they are, without our label.

    The label alone would replace them all. It comes with the next change of the template.
    """
    notes = (live or {}).get("metadata", {}).get("annotations") or {}
    return live is not None and notes.get(objects.HASH_ANNOTATION) == wanted and not objects.label_of(live)


async def _live(desk: Desk, key: tuple[str, str]) -> Json | None:
    try:
        return await desk.cluster.get(DEPLOYMENTS, *key)
    except NotFound:
        return None


def _given(desk: Desk, taskqueue: Json) -> dict[str, Any]:
    about = taskqueue["metadata"]
    instance = desk.fragment.get("metadata", {}).get("labels", {}).get("app.kubernetes.io/instance", "")
    return {"name": about["name"], "namespace": about["namespace"], "uid": about["uid"], "instance": instance}


def _manifest(desk: Desk, taskqueue: Json, spec: TaskQueueSpec) -> Json:
    given = _given(desk, taskqueue)
    template = objects.pod_template(
        spec, given["name"], fragment=desk.fragment, image=desk.image, instance=given["instance"]
    )
    return objects.deployment(spec, template=template, epoch=desk.term.epoch, **given)


def _budget(desk: Desk, taskqueue: Json, spec: TaskQueueSpec) -> Json:
    return objects.budget(spec, **_given(desk, taskqueue))
