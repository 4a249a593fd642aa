"""Redis answers, and refuses: a key of another type, a right that is missing, a password, a server that was demoted."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import redis

from core import checkup, config, redis_client, references
from core.domain.limits import Rate
from core.domain.ordering import LISTS, Lane, PriorityType, digest, list_key
from core.limits import Limiter
from core.redis_client import RedisDown, Server
from core.references import References
from core.telemetry import metrics
from tests.forwarder import Forwarder
from tests.lookout import happens
from tests.signals import until
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from core.embedded import Servers

TYPES = ("a.b:c",)
RIGHTS: dict[str, Any] = {"keys": ["tf:*"], "channels": ["tf:*"], "commands": ["+@all"]}


@pytest.fixture
async def home(environment: dict[str, str]) -> AsyncIterator[House]:
    async with house(environment["DATABASE_URL"]) as there:
        yield there


@pytest.fixture
def admins(redis_servers: Servers) -> Iterator[list[redis.Redis]]:
    """Both servers, on which a user `service` may do all with TaskFlow's keys."""
    made = [redis.Redis(*address) for address in (redis_servers.redis_high, redis_servers.redis_low) if address]
    for admin in made:
        admin.acl_setuser("service", enabled=True, passwords=["+secret"], **RIGHTS)
    yield made
    for admin in made:
        admin.acl_deluser("service")
        admin.close()


def errors(reason: str, server: str = "low") -> float:
    return float(metrics().redis_errors_total.labels(server, reason)._value.get())


def log_lines(worker: WorkerProcess, reason: str) -> list[dict[str, Any]]:
    said = [json.loads(line) for line in worker.lines if line.startswith("{")]
    return [line for line in said if line["event"].startswith("Redis refuses") and line["reason"] == reason]


async def test_whatever_redis_refuses_a_worker_takes_tasks_from_postgresql(
    home: House, environment: dict[str, str], admins: list[redis.Redis]
) -> None:
    as_service = {f"REDIS_{name}_{level}": value for level in ("HIGH", "LOW") for name, value in LOGIN.items()}
    with WorkerProcess({**environment, **as_service, "TASKFLOW_REDIS": "on"}) as worker:
        worker.ready()
        await happens(lambda: _reads(admins[1]))
        rows = await home.database.own_connection()
        kinds = await rows.fetchrow("select sync_types, async_types from workers")
        await rows.close()
        lists = [list_key("default", priority, digest(types)) for priority in PriorityType for types in kinds]
        for admin in admins:
            for name in lists:
                admin.set(name, "of another type")
        await home.ended(await home.submit("noop") + await home.submit("anoop"), within=12)

        for admin in admins:
            admin.delete(*lists)
            admin.acl_setuser("service", commands=["-@list"])
        await home.ended(await home.submit("noop") + await home.submit("anoop"), within=12)
        assert log_lines(worker, "answer") or log_lines(worker, "permission")

        for admin in admins:
            admin.acl_setuser("service", reset_passwords=True, passwords=["+changed"])
            admin.client_kill_filter(user="service")
        await home.ended(await home.submit("noop") + await home.submit("anoop"), within=12)
        until(lambda: log_lines(worker, "password"))
        await home.ended(await home.submit("noop") + await home.submit("anoop"), within=12)
        told = log_lines(worker, "password")
        assert sorted(line["server"] for line in told) in (["high", "low"], ["low"], ["high"]), "it is said once"
        assert "REDIS_PASSWORD_" in told[0]["fix"]


LOGIN = {"USERNAME": "service", "PASSWORD": "secret"}


async def _reads(low: redis.Redis) -> bool:
    return bool(low.hlen("tf:free"))


async def test_an_api_and_a_leader_go_on_beside_keys_of_another_type(
    environment: dict[str, str], admins: list[redis.Redis]
) -> None:
    for admin in admins:
        for name in ("tf:free", "tf:gate", "tf:wake", "tf:led", "tf:generation", "tf:rate:k", f"{LISTS}NORMAL:q:x"):
            admin.zadd(name, {"of another type": 1})
    async with References(seconds=2.0) as refs:
        with pytest.raises(RedisDown):
            await refs.snapshot([f"{LISTS}NORMAL:q:x"], "1")
        with pytest.raises(RedisDown):
            await refs.hint({f"{LISTS}NORMAL:q:x": [uuid4().bytes]})
        assert refs.degraded
        assert await refs.drain_gates() == []
        assert await refs.wait_for_wake(0.01) == set()
        await refs.wake()
        reader = refs.reader(worker=uuid4(), lane=Lane.SYNC, queues=["q"], types=TYPES)
        assert await reader.read(count=1, want=1, block_ms=0) == []
        assert reader.degraded
        await reader.aclose()
        verdict = await Limiter(refs.high).take("k", Rate(10, 60.0), 1)
        assert verdict.granted == 1


async def test_a_refused_password_is_counted_and_told_by_doctor(
    environment: dict[str, str], admins: list[redis.Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_USERNAME_LOW", "service")
    monkeypatch.setenv("REDIS_PASSWORD_LOW", "wrong")
    config.reload()
    before = errors("password")
    server = Server("low", seconds=2.0)
    with pytest.raises(RedisDown, match="invalid username-password"):
        await server.call(lambda client: client.ping())
    await server.aclose()
    assert errors("password") == before + 1
    redis_client._sync_client.cache_clear()
    try:
        found = {finding.name: finding for finding in await asyncio.to_thread(checkup.stores_of_redis)}
    finally:
        redis_client._sync_client.cache_clear()
    assert found["redis high"].ok
    assert not found["redis low"].ok
    assert "refuses our password" in found["redis low"].says
    assert "REDIS_PASSWORD_LOW" in str(found["redis low"].fix)


@asynccontextmanager
async def demoted_behind_one_address(
    admins: list[redis.Redis], redis_servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Forwarder]:
    """The low server is one address; `high` plays the replica that is promoted."""
    assert redis_servers.redis_high is not None
    assert redis_servers.redis_low is not None
    with Forwarder(redis_servers.redis_low) as address:
        monkeypatch.setenv("REDIS_HOST_LOW", "127.0.0.1")
        monkeypatch.setenv("REDIS_PORT_LOW", str(address.port))
        config.reload()
        try:
            yield address
        finally:
            admins[1].replicaof("NO", "ONE")


async def test_clients_leave_a_demoted_redis(
    environment: dict[str, str],
    admins: list[redis.Redis],
    redis_servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    high = redis_servers.redis_high
    assert high is not None
    monkeypatch.setattr(references, "_LISTEN_SECONDS", 0.2)
    worker = uuid4()
    async with (
        demoted_behind_one_address(admins, redis_servers, monkeypatch) as address,
        References(seconds=2.0) as refs,
        aclosing(refs.cancels(worker)) as cancels,
    ):
        reader = refs.reader(worker=uuid4(), lane=Lane.SYNC, queues=["q"], types=TYPES)
        assert await reader.read(count=1, want=1, block_ms=20) == []  # its blocking read has a connection now
        await refs.wait_for_wake(0.01)
        heard = asyncio.ensure_future(anext(cancels))
        await happens(lambda: _subscribed(admins[1]))

        admins[1].replicaof(*high)
        address.target = high
        name = list_key("q", PriorityType.NORMAL, digest(TYPES))
        task = uuid4()

        async def hinted() -> bool:
            try:
                return await refs.hint({name: [task.bytes]}) == 1
            except RedisDown:
                return False

        await happens(hinted, within=5)
        read: list[Any] = []
        for _ in range(10):
            read = read or await reader.read(count=1, want=1, block_ms=20)
        assert [ref.id for ref in read] == [task]
        await refs.wake()
        assert await refs.wait_for_wake(2.0) == {""}

        async def cancel_heard() -> bool:
            await refs.publish_cancel(worker, [task], force=False)
            return heard.done()

        await happens(cancel_heard)
        assert heard.result().ids == [task]
        await reader.aclose()


async def _subscribed(low: redis.Redis) -> bool:
    return bool(low.pubsub_channels())
