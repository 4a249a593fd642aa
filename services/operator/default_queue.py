"""The TaskQueue that an installation begins with, so that the first task has a worker.

It is made when the operator begins to lead and there is none of its name; what is there is never changed. Who wants
none sets no default queue: one that was deleted comes back with the next operator as long as it is set.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from core import telemetry
from core.errors import Conflict, Invalid, NotFound, TaskFlowError
from services.operator.cluster import TASKQUEUES, Cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME: Final = "default"
log = telemetry.get_logger("operator")


async def ensure(cluster: Cluster, namespace: str, spec: str) -> bool:
    """Make the default TaskQueue of `spec` (JSON, or "" for none) if there is none; True when it was made.

    A spec that the API server refuses is logged, and the operator goes on without.
    """
    if not spec or not namespace:
        return False
    try:
        await cluster.get(TASKQUEUES, namespace, NAME)
        return False
    except NotFound:
        pass
    except TaskFlowError as away:
        log.warning("nobody can tell whether there is a default TaskQueue", error=str(away))
        return False
    try:
        await cluster.apply(TASKQUEUES, _manifest(namespace, spec))
    except (TaskFlowError, ValueError) as refused:
        log.error("the default TaskQueue cannot be made", error=str(refused))  # noqa: TRY400 - a sentence, no trace
        return False
    log.info("the default TaskQueue was made", namespace=namespace)
    return True


def _manifest(namespace: str, spec: str) -> dict[str, object]:
    read = json.loads(spec)
    if not isinstance(read, dict):
        raise Invalid("TASKFLOW_DEFAULT_QUEUE holds no JSON object", field="default_queue")
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": NAME, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "taskflow"}},
        "spec": read,
    }


async def probe(cluster: Cluster, namespaces: Sequence[str | None]) -> None:
    """Find out whether TaskQueues can be listed. Raises what the API server says when not."""
    for namespace in namespaces:
        try:
            await cluster.items(TASKQUEUES, namespace)
        except Conflict:  # a list that aged while it was read: it can be listed
            continue
