"""Let go of every TaskQueue: `python -I -u -m services.operator.release [--operator NAME]`.

For the moment before the chart is removed, and for whoever has TaskQueues that cannot be deleted because the operator
is gone. With `--operator` the operator's Deployment is stopped first, else it would put its finalizers back; and the
workers are stopped last, because the stores go with the release. It removes no TaskQueue and no task.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Final

from core import clock, kube, telemetry
from core.config import require, settings
from core.errors import Conflict, NotFound, SettingError, TaskFlowError, Throttled, Unavailable
from services.operator import apply, ownership
from services.operator.cluster import DEPLOYMENTS, PODS, SCALER, TASKQUEUES, Cluster
from services.operator.kopf_app import OURS
from services.operator.namespaces import watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

ALL_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 1.0
_TRIES: Final = 5
log = telemetry.get_logger("release")


async def release(cluster: Cluster, namespaces: Sequence[str | None], own: str = "") -> int:
    """Take our finalizer off TaskQueues; how many there were. None without the definition of TaskQueues.

    `own` is the release whose TaskQueues they are, as namespace/name; "" for all, whosever they are.
    Each namespace is taken by itself: one that is gone, or where we have no rights any more, is logged and left out.
    Raises the last refusal when no namespace could be read, and Unavailable when one of them did not answer.
    """
    released = 0

    async def one(namespace: str | None) -> None:
        nonlocal released
        try:
            found = await cluster.items(TASKQUEUES, namespace)
        except NotFound:
            log.info("there is no kind TaskQueue, so nothing to release")
            return
        for taskqueue in found:
            about = taskqueue["metadata"]
            if own and ownership.owner(taskqueue) not in {"", own}:
                continue
            await _one(cluster, about["namespace"], about["name"], about["uid"])
            released += 1

    await _each(namespaces, one)
    return released


async def _each(namespaces: Sequence[str | None], deed: Callable[[str | None], Awaitable[None]]) -> None:
    """Do a deed in every namespace, whatever becomes of the others. Raises as `release` says."""
    failed: list[TaskFlowError] = []
    for namespace in namespaces:
        try:
            await deed(namespace)
        except TaskFlowError as refused:
            log.warning("a namespace was left out", namespace=namespace or "*", why=str(refused))
            failed.append(refused)
    hopeful = next((one for one in failed if isinstance(one, Unavailable | Throttled | Conflict)), None)
    if hopeful or (failed and len(failed) == len(namespaces)):
        raise hopeful or failed[-1]


async def _one(cluster: Cluster, namespace: str, name: str, uid: str) -> None:
    for left in reversed(range(_TRIES)):
        try:
            await apply.finalizer(cluster, namespace, name, uid, wanted=False)
            return
        except Conflict:
            if not left:
                raise


async def stop_operator(cluster: Cluster, namespace: str, name: str) -> None:
    """Scale the operator to nothing and wait, at most half a minute, until none of its pods is left."""
    if not await _stop(cluster, namespace, name):
        return
    labels = (await cluster.get(DEPLOYMENTS, namespace, name))["spec"]["selector"].get("matchLabels") or {}
    selector = ",".join(f"{label}={value}" for label, value in sorted(labels.items()))
    until = clock.monotonic() + _STOP_SECONDS
    while await cluster.items(PODS, namespace, selector=selector):
        if clock.monotonic() > until:
            log.warning("the operator's pods are still there, going on", seconds=_STOP_SECONDS)
            return
        await clock.system.sleep(_AGAIN_SECONDS)


async def stop_workers(cluster: Cluster, namespaces: Sequence[str | None], own: str = "") -> None:
    """Scale the workers of TaskQueues to nothing; what they run has their drain time. `own` and errors as above."""

    async def one(namespace: str | None) -> None:
        for found in await cluster.items(DEPLOYMENTS, namespace, selector=OURS):
            if not own or ownership.is_of(found, own):
                await _stop(cluster, found["metadata"]["namespace"], found["metadata"]["name"])

    await _each(namespaces, one)


async def _stop(cluster: Cluster, namespace: str, name: str) -> bool:
    try:
        await cluster.merge(DEPLOYMENTS, namespace, name, {"spec": {"replicas": 0}}, "scale", manager=SCALER)
    except NotFound:
        return False
    return True


async def _all(operator: str) -> None:
    namespaces = watched()
    async with kube.client() as api:
        cluster = Cluster(api)
        if operator:
            await stop_operator(cluster, settings.namespace, operator)
        count = await release(cluster, namespaces, settings.release)
        log.info("released", taskqueues=count)
        if operator:
            await stop_workers(cluster, namespaces, settings.release)


def main(arguments: Sequence[str] | None = None) -> int:
    """Release all: 0; 1 when it could not be done within a minute; 2 for a wrong setting."""
    parser = argparse.ArgumentParser(prog="services.operator.release", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--operator", default="", help="the operator's Deployment in TASKFLOW_NAMESPACE, to be stopped")
    asked = parser.parse_args(arguments)
    try:
        require("namespace", "release", "watch_namespaces", "log_level")
        telemetry.configure("release")
    except SettingError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - one line, for a person
        return 2
    try:
        asyncio.run(asyncio.wait_for(_all(asked.operator), ALL_SECONDS))
    except (TaskFlowError, TimeoutError) as failed:
        log.error("not released", error=str(failed) or "it took too long")  # noqa: TRY400 - a sentence, no trace
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
