"""Workers: who is there to run tasks."""

from typing import Any

from fastapi import APIRouter

from core import queue_manager as queue
from core.verbs.workers import WorkerRow
from services.api.deps import Use, Who
from services.api.openapi import example
from services.api.schemas.cluster import WorkersOut

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("", summary="List the living workers", responses=example(200, WorkersOut))
async def list_workers(_: Who, parts: Use) -> dict[str, Any]:
    """Return the workers that have not been declared dead, by name."""
    async with parts.reads.connection() as tx:
        found = await queue.live_workers(tx)
    return {"workers": [_told(row) for row in sorted(found, key=lambda row: (row.name, row.id))]}


def _told(row: WorkerRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "queues": list(row.queues),
        "types": sorted({*row.sync_types, *row.async_types}),
        "slots": {"sync": row.sync_slots, "async": row.async_slots},
        "free": {"sync": row.free_sync, "async": row.free_async},
        "running": max(0, row.sync_slots + row.async_slots - row.free_sync - row.free_async),
        "build": row.build,
        "last_beat_seconds": round(row.beat_age, 3),
    }
