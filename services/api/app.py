"""The application: routes, errors, the edge. Parts are handed in, so that tests can bring theirs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from core.config import settings
from services.api import openapi, problems
from services.api.edge import Edge, Receive, Scope, Send
from services.api.parts import Parts, open_parts
from services.api.routes import auth, keys, ops, queues, submits, tasks, workers


class Application(FastAPI):
    """FastAPI behind the edge: outermost, so that the hot routes pay for nothing of the framework."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._edge = Edge(super().__call__, hot=submits.HOT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        scope["app"] = self
        await self._edge(scope, receive, send)


def create_app(parts: Callable[[], AbstractAsyncContextManager[Parts]] = open_parts) -> FastAPI:
    """Return the application; it opens its parts when it is started and closes them when it is stopped."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with parts() as opened:
            app.state.parts = opened
            yield

    documented = settings.env == "development"
    app = Application(
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
    return app
