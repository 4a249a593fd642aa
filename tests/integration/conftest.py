"""A database in which each service has its PostgreSQL role."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import pytest

from core import roles
from core.database import Database
from tests.conftest import _admin, _database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from core.embedded import Servers

PASSWORD = secrets.token_hex(8)


def make_roles(postgres: Servers) -> None:
    """Make the services' roles on a server where they may be already."""
    for role in roles.RIGHTS:
        _admin(
            postgres,
            f"do $$ begin create role {role}; exception when duplicate_object then null; end $$",
            f"alter role {role} login nosuperuser password '{PASSWORD}'",
        )


@pytest.fixture(scope="session")
def server_with_roles(postgres: Servers) -> Servers:
    """The run's PostgreSQL with the four roles. They belong to the server: other tests may meet them, so they stay."""
    make_roles(postgres)
    return postgres


@pytest.fixture
def url_with_roles(server_with_roles: Servers, template: str) -> Iterator[str]:
    """A fresh database at the newest schema, whose roles have their rights. The URL is its owner's."""
    with _database(server_with_roles, template) as made:
        assert roles.grant(made) == sorted(roles.RIGHTS)
        yield made


def login(url: str, role: str) -> str:
    """Return the URL with which `role` logs in."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))


@asynccontextmanager
async def as_role(url: str, role: str) -> AsyncIterator[Database]:
    """Connect as `role`, which must be no superuser."""
    async with Database(login(url, role), name=f"as {role}") as db:
        async with db.connection() as tx:
            assert await tx.fetchval("select current_user") == role
            assert not await tx.fetchval("select rolsuper from pg_roles where rolname = current_user")
        yield db
