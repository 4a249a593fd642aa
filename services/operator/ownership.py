"""Which release a TaskQueue belongs to. One release serves it; every other one says so and touches nothing.

The annotation `taskflow.dev/release` on the TaskQueue names it, as namespace/name. Who finds none writes its own, with
the resourceVersion as a precondition, so that of two operators one gets it. A Deployment that an older operator applied
names its release in a label only: such a TaskQueue is left to that release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core import telemetry
from core.errors import NotFound
from services.operator import apply, objects
from services.operator.cluster import DEPLOYMENTS
from services.operator.events import Note
from services.operator.mirror import key_of
from services.operator.objects import INSTANCE, RELEASE_ANNOTATION

if TYPE_CHECKING:
    from services.operator.cluster import Json
    from services.operator.desk import Desk, Seen

SAY_SECONDS: Final = 600.0
log = telemetry.get_logger("operator")


def owner(thing: Json) -> str:
    """Return the release that a TaskQueue or a Deployment names, as namespace/name; "" when it names none."""
    return str((thing["metadata"].get("annotations") or {}).get(RELEASE_ANNOTATION) or "")


def is_of(deployment: Json, release: str) -> bool:
    """Tell whether a release may change a Deployment of workers: its own, or one that names no release at all."""
    named = owner(deployment)
    if named:
        return named == release
    instance = (deployment["metadata"].get("labels") or {}).get(INSTANCE)
    return not instance or instance == release.rpartition("/")[2]


async def ours(desk: Desk, seen: Seen, taskqueue: Json) -> bool:
    """Tell whether this release serves a TaskQueue; take one that belongs to nobody.

    Raises Unavailable, and Conflict when somebody wrote at the same time.
    """
    named = owner(taskqueue)
    if named == desk.release:
        return True
    if named:
        _say(desk, seen, taskqueue, f"it belongs to the release {named}")
        return False
    namespace, name = key_of(taskqueue)
    try:
        live = await desk.cluster.get(DEPLOYMENTS, namespace, objects.name_of(name))
    except NotFound:
        live = None
    if live is not None and objects.is_taskflows(live) and not is_of(live, desk.release):
        other = owner(live) or live["metadata"]["labels"][INSTANCE]
        _say(desk, seen, taskqueue, f"its Deployment belongs to the release {other}")
        return False
    return await apply.claim(desk.cluster, namespace, name, taskqueue["metadata"]["uid"], desk.release)


def _say(desk: Desk, seen: Seen, taskqueue: Json, why: str) -> None:
    now = desk.clock.monotonic()
    if seen.told == why and now - seen.told_at < SAY_SECONDS:
        return
    seen.told, seen.told_at = why, now
    namespace, name = key_of(taskqueue)
    text = (
        f"The release {desk.release} does not serve this TaskQueue: {why}. To move it to {desk.release}, run: "
        f"kubectl -n {namespace} annotate --overwrite taskqueue {name} {RELEASE_ANNOTATION}={desk.release}"
    )
    log.warning("a TaskQueue of another release", taskqueue=name, namespace=namespace, why=why)
    desk.events.say(taskqueue, Note(reason="Conflict", text=text, kind="Warning"))
