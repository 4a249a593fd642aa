"""The TaskQueue that an installation begins with, so that the first task has a worker.

It is made when the operator begins to lead and there is none of its name; what is there is never changed. Who wants
none sets no default queue: one that was deleted comes back with the next operator as long as it is set.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from core import telemetry
from core.errors import Conflict, Invalid, NotFound, TaskFlowError
from core.pool import heed_cancel
from services.operator.cluster import TASKQUEUES, Cluster
from services.operator.objects import RELEASE_ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.clock import Clock

NAME: Final = "default"
AGAIN_SECONDS: Final = 10.0
log = telemetry.get_logger("operator")


async def ensure(cluster: Cluster, namespace: str, spec: str, clock: Clock, *, release: str) -> None:
    """Make the default TaskQueue of `spec` (JSON, or "" for none) if there is none. It belongs to `release`.

    While the API server does not let us, it is tried again. A spec that the server refuses is logged, and the operator
    goes on without.
    """
    said = ""
    while spec and namespace:
        try:
            if await _made(cluster, namespace, spec, release):
                log.info("the default TaskQueue was made", namespace=namespace)
            return
        except (Invalid, ValueError) as refused:
            log.error("the default TaskQueue cannot be made", error=str(refused))  # noqa: TRY400 - a sentence, no trace
            return
        except TaskFlowError as away:
            if str(away) != said:
                log.warning("the default TaskQueue cannot be made, trying again", error=str(away), namespace=namespace)
            said = str(away)
        heed_cancel()
        await clock.sleep(AGAIN_SECONDS)


async def _made(cluster: Cluster, namespace: str, spec: str, release: str) -> bool:
    """Make it unless it is there; True when it was made. Raises what the API server says."""
    try:
        await cluster.get(TASKQUEUES, namespace, NAME)
    except NotFound:
        with suppress(Conflict):  # somebody else was quicker
            await cluster.create(TASKQUEUES, namespace, _manifest(namespace, spec, release))
            return True
    return False


def _manifest(namespace: str, spec: str, release: str) -> dict[str, object]:
    read = json.loads(spec)
    if not isinstance(read, dict):
        raise Invalid("TASKFLOW_DEFAULT_QUEUE holds no JSON object", field="default_queue")
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "taskflow"},
            "annotations": {RELEASE_ANNOTATION: release},
        },
        "spec": read,
    }


async def probe(cluster: Cluster, namespaces: Sequence[str | None]) -> None:
    """Find out whether TaskQueues can be listed in any namespace. Raises what the API server says last when not."""
    last: TaskFlowError | None = None
    for namespace in namespaces:
        try:
            await cluster.items(TASKQUEUES, namespace)
        except Conflict:  # a list that aged while it was read: it can be listed
            return
        except TaskFlowError as refused:
            last = refused
        else:
            return
    if last is not None:
        raise last
