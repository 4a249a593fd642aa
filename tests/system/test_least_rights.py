"""A TaskFlow whose services log in with the roles and Redis users of the chart: nothing that they need is refused."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import redis

from core import roles
from core.lua import load
from tests.chart import helm
from tests.integration.conftest import login, make_roles
from tests.signals import until
from tests.system.conftest import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.embedded import Servers
    from tests.system.world import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FULL, reason="a TaskFlow of its own beside those of other files: only at full size"),
]
TASKS = 40
SCRIPTS = [load(name).sha for name in ("read", "notify")]


@pytest.fixture
def redis_admins(module_world: World) -> Iterator[list[redis.Redis]]:
    """Both Redis as their default user, after the chart's users were made in them."""
    made = helm.one(helm.of_file(None), "Secret", "taskflow-redis")["stringData"]
    lines = [line.split() for line in made["users.acl"].splitlines()[1:]]
    servers: Servers = module_world.servers
    with ExitStack() as stack:
        admins = [stack.enter_context(redis.Redis(*address)) for address in (servers.redis_high, servers.redis_low)]
        for admin in admins:
            for line in lines:
                admin.execute_command("ACL", "SETUSER", *line[1:])
            admin.acl_log_reset()
            admin.script_flush()
        yield admins
        for admin in admins:
            admin.execute_command("ACL", "DELUSER", *(line[1] for line in lines))


def as_service(world: World, service: str) -> dict[str, str]:
    password = helm.one(helm.of_file(None), "Secret", "taskflow-redis")["stringData"][f"{service}-password"]
    return {
        "DATABASE_URL": login(world.database_url, f"taskflow_{service}"),
        **{f"REDIS_USERNAME_{level}": service for level in ("HIGH", "LOW")},
        **{f"REDIS_PASSWORD_{level}": password for level in ("HIGH", "LOW")},
    }


def test_nothing_that_a_service_does_is_refused(
    module_world: World, postgres: Servers, redis_admins: list[redis.Redis]
) -> None:
    world = module_world
    make_roles(postgres)
    roles.grant(world.database_url)
    world.api(**as_service(world, "api"))
    world.schedulers(**as_service(world, "scheduler"))
    [worker] = world.workers(**as_service(world, "worker"))
    history = world.history()
    ids = world.submit_together("work", TASKS, history=str(history))
    ids += world.submit_each("work", [{"history": str(history)}] * 5, priority="HIGH")
    ids += world.submit_each("work", [{"history": str(history)}] * 5, concurrency_key="one")
    assert set(world.ended(ids, within=60).values()) == {"COMPLETED"}
    long = world.submit("work", history=str(history), seconds=60)
    world.running(long)
    world.client.cancel(long[0])
    assert set(world.ended(long).values()) == {"CANCELLED"}
    world.stop(worker)
    refused: list[Any] = [entry for admin in redis_admins for entry in admin.acl_log()]
    assert refused == []
    # References came from Redis: the scripts were loaded by the leader, because a worker may not.
    assert until(lambda: all(all(admin.script_exists(*SCRIPTS)) for admin in redis_admins[1:]))
    assert not any("InsufficientPrivilege" in str(line) for member in world.fleet.members for line in member.lines())
