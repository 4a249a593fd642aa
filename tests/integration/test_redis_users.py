"""A Redis user for each service: who may not do something goes on as without Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from core import config
from core.lua import load
from core.redis_client import RedisDown, Server, get_redis_client
from core.references import References

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.embedded import Servers


@pytest.fixture
async def low(
    environment: dict[str, str], redis_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    """The low Redis as the user `worker`, who may do what the worker does, and no more."""
    assert redis_servers.redis_low is not None
    with redis.Redis(*redis_servers.redis_low) as admin:
        rules = {
            "keys": ["tf:*"],
            "commands": ["+@read", "+@write", "+@connection", "+evalsha", "-@dangerous", "+acl|whoami"],
        }
        admin.acl_setuser("worker", enabled=True, passwords=["+secret"], **rules)  # type: ignore[arg-type]
        monkeypatch.setenv("REDIS_USERNAME_LOW", "worker")
        monkeypatch.setenv("REDIS_PASSWORD_LOW", "secret")
        config.reload()
        server = Server("low", seconds=2.0)
        try:
            yield server
        finally:
            await server.aclose()
            admin.acl_deluser("worker")


async def test_both_clients_log_in_as_their_user(low: Server) -> None:
    from core.redis_client import _sync_client

    _sync_client.cache_clear()
    try:
        assert await low.call(lambda client: client.acl_whoami()) == "worker"
        with get_redis_client("low") as client:
            assert client.acl_whoami() == "worker"
    finally:
        _sync_client.cache_clear()


async def test_what_the_user_may_not_do_is_redis_down(low: Server) -> None:
    with pytest.raises(RedisDown, match="no permissions"):
        await low.call(lambda client: client.flushall())
    with pytest.raises(RedisDown):  # it may run known scripts only, and knows none yet
        await low.run(load("lock"), ["tf:leader"], [1, "me", 1000])
    assert not low.usable
    assert not low.breaker.open
    assert await low.call(lambda client: client.set("tf:mine", "1"))


async def test_the_leader_loads_the_scripts_that_a_worker_may_run_and_not_load(
    low: Server, redis_servers: Servers
) -> None:
    assert redis_servers.redis_low is not None
    with redis.Redis(*redis_servers.redis_low) as admin:
        admin.script_flush()
        with pytest.raises(RedisDown):
            await low.run(load("read"), [], ["1", "", ""])
        with config.override(redis_username_low=None, redis_password_low=None):
            async with References() as leader:
                await leader.lead()
    assert await low.run(load("read"), [], ["1", "", ""]) == [1]
    assert low.usable
