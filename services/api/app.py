"""The application: routes, errors, the edge. Parts are handed in, so that tests can bring theirs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from core.config import settings
from services.api import openapi, problems
from services.api.edge import Edge
from services.api.parts import Parts, open_parts
from services.api.routes import auth, keys, ops, queues, submits, tasks, workers


def create_app(parts: Callable[[], AbstractAsyncContextManager[Parts]] = open_parts) -> FastAPI:
    """Return the application; it opens its parts when it is started and closes them when it is stopped."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with parts() as opened:
            app.state.parts = opened
            yield

    documented = settings.env == "development"
    app = FastAPI(
        title="TaskFlow",
        lifespan=lifespan,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in (submits.router, tasks.router, queues.router, workers.router, keys.router, auth.router, ops.router):
        app.include_router(router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Edge, hot=submits.HOT)
    return app
