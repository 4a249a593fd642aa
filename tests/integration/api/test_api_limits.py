from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import redis

from core import config, embedded
from core import queue_manager as queue
from core.clock import SystemClock
from core.domain.limits import Rate, take
from core.errors import Throttled
from core.limits import _RATE, Limiter, Tries, refuse
from core.pool import Database
from core.redis_client import Server
from tests.conftest import flush
from tests.integration.api.conftest import PASSWORD, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from core.embedded import Servers, Which
    from tests.integration.api.conftest import Api

TASK = {"type": "a:b"}


@pytest.fixture
async def high(environment: dict[str, str]) -> AsyncIterator[Server]:
    """A server that a busy machine cannot make look down: what is counted here is calls, not time."""
    server = Server("high", seconds=10.0)
    yield server
    await server.aclose()


class Clock(SystemClock):
    """Its monotonic time is moved by hand."""

    at = 100.0

    def monotonic(self) -> float:
        return self.at


async def test_a_submit_tells_what_is_left_and_a_batch_costs_what_it_holds(api: Api) -> None:
    store = api.parts.limiter._store
    assert isinstance(store, Server)
    store._seconds = 10.0  # see `high`
    with config.override(rate_limit_submit_per_minute=10):
        user = api.user("ada")
        async with (
            api.client(**{"x-api-key": api.key(user).text}) as one,
            api.client(**{"x-api-key": api.key(user).text}) as two,
        ):
            first = await one.post("/v1/tasks", json=TASK)
            limits = {name: int(first.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset")}
            assert limits == {"limit": 10, "remaining": 9, "reset": 6}
            batch = await two.post("/v1/tasks:batch", json={"tasks": [TASK] * 8})
            assert (batch.status_code, batch.headers["ratelimit-remaining"]) == (201, "1")
            refused = await one.post("/v1/tasks:batch", json={"tasks": [TASK] * 3})
            assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
            assert 1 <= int(refused.headers["retry-after"]) <= 12
            assert (await two.post("/v1/tasks", json=TASK)).status_code == 201
            assert (await one.post("/v1/tasks", json=TASK)).status_code == 429
            never = await one.post("/v1/tasks:batch", json={"tasks": [TASK] * 11})
            assert "at most 10" in never.json()["fix"]
            assert (await one.get("/v1/tasks")).status_code == 200
        async with api.person("eve") as eve:
            assert (await eve.post("/v1/tasks", json=TASK)).status_code == 201


async def test_guessing_passwords_ends_soon_whatever_the_headers_say(api: Api, redis_servers: Servers) -> None:
    api.user("ada")
    with config.override(rate_limit_auth_per_minute=5):
        codes = []
        for number in range(12):
            headers = {
                "x-forwarded-for": f"10.0.0.{number}",
                "x-real-ip": f"10.1.0.{number}",
                "forwarded": "for=1.2.3.4",
            }
            guess = {"username": "ada", "password": f"guess number {number}"}
            answer = await api.anonymous.post("/v1/auth/token", json=guess, headers=headers)
            codes.append(answer.status_code)
            flush(redis_servers)  # emptying Redis opens no door
        assert codes[:5] == [401] * 5
        assert set(codes[5:]) == {429}
        assert int(answer.headers["retry-after"]) <= 60
        async with running() as another:  # nor does another process, which has seen nothing yet
            assert (await another.anonymous.post("/v1/auth/token", json=guess)).status_code == 429


async def test_a_trusted_proxy_says_who_asks_and_what_its_clients_say_counts_for_nothing(api: Api) -> None:
    peer = ip_network("127.0.0.1/32")  # what the test's transport calls itself

    async def guess(client: str, claimed: str) -> int:
        headers = [("x-forwarded-for", claimed), ("x-forwarded-for", client)]
        someone = {"username": f"nobody-{claimed}", "password": "guess it"}
        return (await api.anonymous.post("/v1/auth/token", json=someone, headers=headers)).status_code

    with config.override(rate_limit_auth_per_minute=3, trusted_proxies=(peer,)):
        register = {"username": "ada", "email": "ada@example.org", "password": PASSWORD}
        for _ in range(3):
            await api.anonymous.post("/v1/auth/register", json=register, headers={"x-forwarded-for": "198.51.100.1"})
        again = await api.anonymous.post(
            "/v1/auth/register", json=register, headers={"x-forwarded-for": "198.51.100.1"}
        )
        assert again.status_code == 429
        other = await api.anonymous.post(
            "/v1/auth/register", json=register, headers={"x-forwarded-for": "198.51.100.2"}
        )
        assert other.status_code == 409
        codes = [await guess("203.0.113.5", f"10.0.0.{number}") for number in range(6)]
        assert codes == [401] * 3 + [429] * 3


async def test_guessing_keys_ends_soon_and_the_right_key_still_works(api: Api) -> None:
    with config.override(rate_limit_auth_per_minute=5):
        codes = [
            (await api.anonymous.get("/v1/tasks", headers={"x-api-key": f"tf_{'a' * 12}_{number:043d}"})).status_code
            for number in range(12)
        ]
        assert codes == [401] * 5 + [429] * 7
        async with api.person("ada") as ada:
            assert (await ada.get("/v1/tasks")).status_code == 200


async def test_registration_is_limited_by_address(api: Api) -> None:
    with config.override(rate_limit_auth_per_minute=3):
        codes = []
        for number in range(5):
            someone = {"username": f"user{number}", "email": f"u{number}@example.org", "password": PASSWORD}
            codes.append((await api.anonymous.post("/v1/auth/register", json=someone)).status_code)
        assert codes == [201, 201, 201, 429, 429]


async def test_the_script_in_redis_and_the_arithmetic_agree(high: Server) -> None:
    rate = Rate(limit=50, period=600.0)  # slow, so that the time between two calls changes nothing
    tat = 0.0
    for turn, (cost, want) in enumerate(
        [(1, 1), (5, 5), (1, 7), (0, 0), (30, 1), (8, 8), (3, 9), (3, 3), (1, 1), (1, 1)]
    ):
        said = await high.run(_RATE, ["tf:rate:test"], [rate.limit, 600_000_000, cost, max(cost, want)])
        mine = take(rate, tat, 0.0, cost=cost, want=max(cost, want))
        tat = mine.tat
        assert (said[0], said[1]) == (mine.granted, mine.remaining), turn
        assert said[2] / 1e6 == pytest.approx(mine.reset, abs=1.0)
        assert said[3] / 1e6 == pytest.approx(mine.retry_after, abs=1.0)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, name="tf-test", size=4) as made:
        yield made


async def test_the_statement_in_postgresql_and_the_arithmetic_agree(database: Database) -> None:
    rate = Rate(limit=7, period=700.0)  # slow, so that the time between two calls changes nothing
    tat = 0.0
    for turn in range(10):
        said = await Tries(database).take("one", rate)  # of a new process each time
        mine = take(rate, tat, 0.0, cost=1)
        tat = mine.tat
        assert (said.granted, said.remaining) == (mine.granted, mine.remaining), turn
        assert said.reset == pytest.approx(mine.reset, abs=5.0)
        assert said.retry_after == pytest.approx(mine.retry_after, abs=5.0)
    assert (said.granted, (await Tries(database).take("another", rate)).granted) == (0, 1)


async def test_tries_come_back_with_time_and_another_clock_locks_nobody_out(database: Database) -> None:
    rate = Rate(limit=3, period=60.0)

    async def tries(number: int) -> int:
        return sum([(await Tries(database).take("one", rate)).granted for _ in range(number)])

    async def move(seconds: float) -> None:
        async with database.connection() as tx:
            await tx.execute("update login_tries set whole_at = whole_at + make_interval(secs => $1)", seconds)

    assert await tries(5) == 3
    await move(-20.5)  # as if so much time had gone by
    assert await tries(3) == 1
    await move(-3600.0)
    assert await tries(5) == 3
    await move(3600.0)  # as if the clock had been put back
    assert await tries(3) == 1
    await move(-60.0)
    async with database.begin() as tx:
        await queue.purge(tx, 10)
        assert await tx.fetchval("select count(*) from login_tries") == 0


async def test_tries_at_the_same_moment_share_one_allowance(database: Database) -> None:
    rate = Rate(limit=5, period=600.0)
    verdicts = await asyncio.gather(*(Tries(database).take("one", rate) for _ in range(20)))
    assert sum(verdict.granted for verdict in verdicts) == 5


async def test_without_postgresql_guesses_are_counted_here() -> None:
    async with Database("postgresql://nobody@127.0.0.1:1/none", name="tf-test") as nowhere:
        tries = Tries(nowhere, Clock())
        assert [(await tries.take("one", Rate(2, 600.0))).granted for _ in range(3)] == [1, 1, 0]


async def test_two_processes_share_one_allowance(high: Server) -> None:
    rate = Rate(limit=6000, period=6000.0)
    limiters = [Limiter(high) for _ in range(2)]
    granted = 0
    for _ in range(2000):
        for limiter in limiters:
            granted += (await limiter.take("both", rate, 5)).granted
    # What one of them fetched ahead and could not spend any more is the only loss.
    assert 6000 - 2 * (6000 // 600) <= granted <= 6000 + 60


async def test_a_crowd_costs_a_few_round_trips(high: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = Server.run

    async def counted(*given: object) -> object:
        calls.append(1)
        return await run(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Server, "run", counted)
    limiter = Limiter(high, Clock())
    verdicts = await asyncio.gather(*(limiter.take("crowd", Rate(60_000)) for _ in range(1000)))
    assert {verdict.granted for verdict in verdicts} == {1}
    assert len(calls) == 10
    refusals = await asyncio.gather(*(limiter.take("small", Rate(1, 600.0)) for _ in range(500)))
    assert sum(verdict.granted for verdict in refusals) == 1
    assert len(calls) == 12


async def test_without_redis_a_bucket_of_our_own_decides() -> None:
    clock = Clock()
    limiter, rate = Limiter(None, clock), Rate(3, 30.0)
    assert [(await limiter.take("a", rate)).granted for _ in range(4)] == [1, 1, 1, 0]
    clock.at += 10.0
    assert [(await limiter.take("a", rate)).granted for _ in range(2)] == [1, 0]


async def test_a_redis_without_memory_refuses_nobody(api: Api, redis_servers: Servers) -> None:
    assert redis_servers.redis_high is not None
    async with api.person("ada") as ada:
        server = redis.Redis(*redis_servers.redis_high)
        try:
            server.config_set("maxmemory", 1)
            answers = [await ada.post("/v1/tasks", json=TASK) for _ in range(5)]
        finally:
            server.config_set("maxmemory", 0)
    assert {answer.status_code for answer in answers} == {201}
    assert answers[-1].headers["ratelimit-limit"] == "1000000"


@contextmanager
def gone(servers: Servers, how: str) -> Iterator[None]:
    """Both Redis killed, or frozen so that connections hang."""
    pids: dict[Which, int] = {}
    for which in ("high", "low"):
        address = servers.redis_high if which == "high" else servers.redis_low
        assert address is not None
        pids[which] = redis.Redis(*address).info("server")["process_id"]
    for which, pid in pids.items():
        if how == "frozen":
            os.kill(pid, signal.SIGSTOP)
        else:
            embedded.stop_redis(servers, which)
    try:
        yield
    finally:
        for which, pid in pids.items():
            if how == "frozen":
                os.kill(pid, signal.SIGCONT)
            else:
                embedded.start_redis(servers, which)


@pytest.mark.fault
@pytest.mark.parametrize("how", ["dead", "frozen"])
async def test_a_lost_redis_costs_no_request_and_little_time(api: Api, redis_servers: Servers, how: str) -> None:
    loop = asyncio.get_running_loop()
    async with api.client(**{"x-api-key": api.key(api.user("ada")).text}) as ada:
        assert (await ada.post("/v1/tasks", json=TASK)).status_code == 201
        with gone(redis_servers, how):
            began = loop.time()
            answers = [await ada.post("/v1/tasks", json=TASK) for _ in range(50)]
            took = loop.time() - began
            login = {"username": "ada", "password": PASSWORD}
            assert (await api.anonymous.post("/v1/auth/token", json=login)).status_code == 200
            ready = await api.anonymous.get("/readyz")
    assert {answer.status_code for answer in answers} == {201}
    assert took < 5.0
    stores = {"postgresql": "up", "redis_high": "down", "redis_low": "down"}
    assert (ready.status_code, ready.json()["stores"]) == (200, stores)


def test_a_refusal_says_how_long() -> None:
    rate = Rate(10)
    spent = take(rate, 0.0, 0.0, cost=10)
    with pytest.raises(Throttled) as refused:
        refuse(take(rate, spent.tat, 0.0, cost=2), rate, 2)
    assert refused.value.retry_after == pytest.approx(12.0)
    refuse(spent, rate, 10)
