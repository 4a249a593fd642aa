"""Queues: how deep they are, and an administrator's hand on them."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from core import queue_manager as queue
from core.verbs.queues import Depth
from services.api import bodies
from services.api.deps import Admin, Use, Who
from services.api.openapi import body, example, problems
from services.api.parts import Parts
from services.api.schemas.cluster import LimitsIn, QueueOut, QueuesOut

router = APIRouter(prefix="/v1/queues", tags=["queues"])
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", examples=["text"])]


@router.get("", summary="List all queues", responses=example(200, QueuesOut))
async def list_queues(_: Who, parts: Use) -> dict[str, Any]:
    """Return all queues with their depth. Depth is everybody's: it is what a worker has before it."""
    async with parts.reads.connection() as tx:
        found = await queue.depth(tx)
    return {"queues": [_told(each) for each in found]}


@router.post("/{name}:pause", summary="Pause a queue", responses={**example(200, QueueOut), **problems(403, 404, 422)})
async def pause(_: Admin, name: Name, parts: Use) -> dict[str, Any]:
    """Start nothing of this queue any more; what runs goes on, and tasks are still accepted."""
    return await _set_paused(parts, name, paused=True)


@router.post(
    "/{name}:resume", summary="Resume a queue", responses={**example(200, QueueOut), **problems(403, 404, 422)}
)
async def resume(_: Admin, name: Name, parts: Use) -> dict[str, Any]:
    """Start tasks of this queue again."""
    return await _set_paused(parts, name, paused=False)


@router.put(
    "/{name}/limits",
    summary="Set a queue's caps",
    openapi_extra=body(LimitsIn),
    responses={**example(200, QueueOut), **problems(400, 403, 404, 413, 415, 422)},
)
async def set_limits(_: Admin, name: Name, request: Request, parts: Use) -> dict[str, Any]:
    """Set how many tasks run at once. It holds from now on; what runs already goes on."""
    wanted = await bodies.read_model(request, LimitsIn)
    async with parts.writes.connection() as tx:
        await queue.set_limits(tx, name, max_concurrent=wanted.max_concurrent, max_per_key=wanted.max_per_key)
    return await _changed(parts, name)


async def _set_paused(parts: Parts, name: str, *, paused: bool) -> dict[str, Any]:
    async with parts.writes.connection() as tx:
        await queue.set_paused(tx, name, paused=paused)
    return await _changed(parts, name)


async def _changed(parts: Parts, name: str) -> dict[str, Any]:
    """Tell the leader that a queue was changed; return the queue as it is now."""
    await parts.references.wake()
    async with parts.reads.connection() as tx:
        [depth] = await queue.depth(tx, [name])  # queues are never deleted
    return _told(depth)


def _told(depth: Depth) -> dict[str, Any]:
    return {
        "name": depth.queue,
        "paused": depth.paused,
        "max_concurrent": depth.max_concurrent,
        "max_per_key": depth.max_per_key,
        "depth": {
            "pending": depth.pending,
            "queued": depth.queued,
            "running": depth.running,
            "failed": depth.failed,
        },
        "oldest_queued_seconds": depth.oldest_queued_seconds,
    }
