"""The real application on real PostgreSQL and Redis; only the cost of a password hash is smaller than in life."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import argon2
import httpx2
import pytest

from core import accounts, database
from core.auth import Passwords
from services.api.app import create_app
from services.api.parts import open_parts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from core.models import User
    from services.api.parts import Parts

CHEAP = Passwords(argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Api:
    """The application under test."""

    app: Any
    anonymous: httpx2.AsyncClient

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.state.parts
        return parts

    def client(self, **headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://api", headers=headers)

    def user(self, name: str, *, admin: bool = False) -> User:
        with database.SessionLocal() as session:
            user = accounts.register(session, CHEAP, username=name, email=f"{name}@example.org", password=PASSWORD)
            user.is_admin = admin
            session.commit()
            return user

    def key(self, user: User, **how: Any) -> accounts.MadeKey:
        with database.SessionLocal() as session:
            made = accounts.create_key(session, owner_id=user.id, name="test", **{"expires_at": None, **how})
            session.commit()
            return made

    def person(self, name: str, *, admin: bool = False) -> httpx2.AsyncClient:
        """A new user's client."""
        return self.client(**{"x-api-key": self.key(self.user(name, admin=admin)).text})


@pytest.fixture
def api_database(environment: dict[str, str]) -> Iterator[None]:
    """The lazy engine belongs to one database, and each test has its own."""
    for face in (database._engine, database._sessions):
        face.cache_clear()
    yield
    database.engine.dispose()
    for face in (database._engine, database._sessions):
        face.cache_clear()


@asynccontextmanager
async def running() -> AsyncIterator[Api]:
    app = create_app(partial(open_parts, passwords=CHEAP))
    async with app.router.lifespan_context(app):
        api = Api(app, httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api"))
        async with api.anonymous:
            yield api


@pytest.fixture
async def api(api_database: None) -> AsyncIterator[Api]:
    async with running() as started:
        yield started


@pytest.fixture
async def ada(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    async with api.person("ada") as client:
        yield client


@pytest.fixture
async def eve(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    async with api.person("eve") as client:
        yield client


@pytest.fixture
async def root(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    async with api.person("root", admin=True) as client:
        yield client
