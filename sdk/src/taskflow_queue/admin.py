"""What can be asked of the server about everything but tasks: queues, workers, keys, accounts. See verbs.py."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from taskflow_queue import models
from taskflow_queue.shapes import Flow, command, listed
from taskflow_queue.wire import Call

if TYPE_CHECKING:
    from datetime import datetime


def queues() -> Flow[list[models.QueueInfo]]:
    """Return all queues with their depth."""
    found = yield from listed("/v1/queues", "queues")
    return msgspec.convert(found, list[models.QueueInfo])


def pause(queue: str) -> Flow[None]:
    """Start no more tasks of a queue, until `resume`. Admins only."""
    yield command(f"/v1/queues/{quote(queue, safe='')}:pause")


def resume(queue: str) -> Flow[None]:
    """Start tasks of a queue again. Admins only."""
    yield command(f"/v1/queues/{quote(queue, safe='')}:resume")


def limit(queue: str, *, max_concurrent: int = 0, max_per_key: int = 0) -> Flow[None]:
    """Set how many tasks of a queue, and of each concurrency key in it, run at once; 0 is no limit. Admins only."""
    body = {"max_concurrent": max_concurrent, "max_per_key": max_per_key}
    yield command(f"/v1/queues/{quote(queue, safe='')}/limits", body, method="PUT")


def workers() -> Flow[list[models.WorkerInfo]]:
    """Return the workers."""
    found = yield from listed("/v1/workers", "workers")
    return msgspec.convert(found, list[models.WorkerInfo])


def keys() -> Flow[list[models.KeyInfo]]:
    """Return the caller's API keys, without the secrets."""
    found = yield from listed("/v1/api-keys", "api_keys", "keys")
    return msgspec.convert(found, list[models.KeyInfo])


def create_key(name: str, *, expires_at: datetime | None = None, token: str | None = None) -> Flow[models.KeyInfo]:
    """Make an API key; its secret is in this answer and nowhere else. `token` asks in another one's name."""
    body = {"name": name} | ({"expires_at": expires_at.isoformat()} if expires_at else {})
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = yield command("/v1/api-keys", body, headers=headers, repeatable=False)
    return msgspec.json.decode(answer.body, type=models.KeyInfo)


def revoke_key(key_id: str) -> Flow[None]:
    """Make an API key useless, everywhere within 5 seconds."""
    yield Call(method="DELETE", path=f"/v1/api-keys/{quote(key_id, safe='')}")


def register(username: str, email: str, password: str) -> Flow[None]:
    """Make an account. Raises Conflict when the name is taken, Forbidden when registration is closed."""
    yield command("/v1/auth/register", {"username": username, "email": email, "password": password}, repeatable=False)


def token(username: str, password: str) -> Flow[str]:
    """Return an access token for a user, good for minutes. Raises Unauthenticated."""
    answer = yield command("/v1/auth/token", {"username": username, "password": password})
    return str(answer.json()["access_token"])
