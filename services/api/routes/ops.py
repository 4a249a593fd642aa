"""For operators: is it alive, should it get requests, what does it count."""

from typing import Any

from fastapi import APIRouter, Request, Response

from core import telemetry
from core.config import settings
from core.errors import Unavailable
from core.redis_client import RedisDown, Server
from services.api.deps import Use, principal_of
from services.api.openapi import example, problems
from services.api.parts import Parts
from services.api.schemas.cluster import HealthOut, ReadyOut

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Is this process alive", responses=example(200, HealthOut))
async def healthz() -> dict[str, str]:
    """Answer whatever the stores do: restarting this process would not mend them."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="Should requests be sent here",
    responses={**example(200, ReadyOut), **example(503, ReadyOut, "Not started, not migrated, or about to stop.")},
)
async def readyz(parts: Use, response: Response) -> dict[str, Any]:
    """Tell whether this process is started, its database migrated, and it is not about to stop."""
    readiness = parts.readiness
    if not readiness.ready:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return {
        "ready": readiness.ready,
        "started": readiness.started,
        "migrated": readiness.migrated,
        "draining": readiness.draining,
        "stores": {
            "postgresql": await _postgresql(parts),
            "redis_high": await _redis(parts.references.high),
            "redis_low": await _redis(parts.references.low),
        },
    }


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "taskflow_http_requests_total 1.0\n"}}}, **problems(401)},
)
async def metrics(request: Request) -> Response:
    """Return the counters of this process. In production to users only; TASKFLOW_METRICS_PORT is for scrapers."""
    if settings.env == "production":
        await principal_of(request)
    text, kind = telemetry.exposed()
    return Response(text, media_type=kind)


async def _postgresql(parts: Parts) -> str:
    try:
        async with parts.reads.connection() as tx:
            await tx.fetchval("select 1")
    except Unavailable:
        return "down"
    return "up"


async def _redis(server: Server) -> str:
    try:
        await server.call(lambda client: client.ping())
    except RedisDown as down:
        return "off" if "switched off" in down.message else "down"
    return "up"
