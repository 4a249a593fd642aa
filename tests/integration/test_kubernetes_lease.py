from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import kubernetes_lease, leadership
from core.database import Database
from core.errors import Deposed, Unavailable
from core.kubernetes_lease import KubernetesLease
from core.leadership import Leadership, RedisLock
from core.references import References
from tests.kubeapi import KubeApi, api_client, kube_api
from tests.leading import OwnClock
from tests.lookout import happens
from tests.system.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from core.leadership import Term

NAME = "release-scheduler"


@pytest.fixture
async def server() -> AsyncIterator[KubeApi]:
    async with kube_api() as running:
        yield running


@pytest.fixture
async def api(server: KubeApi) -> AsyncIterator[Any]:
    async with api_client(server) as client:
        yield client


def lease(api: Any, holder: str, clock: OwnClock) -> KubernetesLease:
    return KubernetesLease(api, "here", NAME, holder, clock=clock)


async def test_a_lease_that_is_not_there_is_made_and_then_renewed(server: KubeApi, api: Any) -> None:
    one = lease(api, "one", OwnClock())
    assert await one.attempt()
    spec = server.leases[NAME]["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"], spec["leaseDurationSeconds"]) == ("one", 0, 6)
    before = server.leases[NAME]["metadata"]["resourceVersion"]
    assert await one.renew()
    after = server.leases[NAME]
    assert after["metadata"]["resourceVersion"] != before
    assert (after["spec"]["acquireTime"], after["spec"]["leaseTransitions"]) == (spec["acquireTime"], 0)


async def test_only_what_a_candidate_saw_itself_makes_a_lease_old(server: KubeApi, api: Any) -> None:
    clock = OwnClock()
    one, two = lease(api, "one", clock), lease(api, "two", clock)
    assert await one.attempt()
    clock.advance(3600)  # nobody watched
    assert not await two.attempt()
    clock.advance(5.9)
    assert await one.renew()
    assert not await two.attempt()
    clock.advance(5.9)
    assert not await two.attempt()
    server.put(NAME, team="a")  # a label is no sign of life
    clock.advance(0.2)
    assert await two.attempt()
    assert server.leases[NAME]["spec"]["leaseTransitions"] == 1
    assert server.leases[NAME]["metadata"]["labels"] == {"team": "a"}
    assert not await one.renew()


async def test_of_many_that_ask_together_one_is_chosen(server: KubeApi, api: Any) -> None:
    for _ in range(5):
        clock = OwnClock()
        many = [lease(api, f"c{number}", clock) for number in range(8)]
        assert sum(await asyncio.gather(*(one.attempt() for one in many))) == 1
        server.put(NAME, {"holderIdentity": "", "leaseTransitions": 7})
        assert sum(await asyncio.gather(*(one.attempt() for one in many))) == 1
        assert server.leases[NAME]["spec"]["leaseTransitions"] == 8
        server.delete(NAME)


async def test_a_lease_given_back_is_free_at_once(server: KubeApi, api: Any) -> None:
    clock = OwnClock()
    one, two = lease(api, "one", clock), lease(api, "two", clock)
    assert await one.attempt()
    assert not await two.attempt()
    await one.release()
    assert server.holder(NAME) == ""
    assert await two.attempt()
    await one.release()  # it is not his any more
    assert server.holder(NAME) == "two"


async def test_a_deleted_lease_is_made_again_by_its_holder(server: KubeApi, api: Any) -> None:
    clock = OwnClock()
    one, two = lease(api, "one", clock), lease(api, "two", clock)
    assert await one.attempt()
    server.delete(NAME)
    assert await one.renew()
    assert server.holder(NAME) == "one"
    server.delete(NAME)
    assert await two.attempt()
    assert not await one.renew()


async def test_a_lease_handed_to_a_stranger_is_lost_and_taken_back_when_it_stands_still(
    server: KubeApi, api: Any
) -> None:
    clock = OwnClock()
    one = lease(api, "one", clock)
    assert await one.attempt()
    server.hand_to(NAME, "stranger")
    assert not await one.renew()
    assert not await one.attempt()
    clock.advance(6.1)  # his year is not believed
    assert await one.attempt()


async def test_an_edit_or_an_emptied_holder_costs_the_leader_nothing(server: KubeApi, api: Any) -> None:
    one = lease(api, "one", OwnClock())
    assert await one.attempt()
    server.put(NAME, team="a")
    assert await one.renew()
    server.put(NAME, {})
    assert await one.renew()
    assert server.holder(NAME) == "one"


@pytest.mark.parametrize("mood", ["failing", "hanging", "refusing"])
async def test_a_server_that_cannot_answer_takes_the_lease_from_nobody(
    server: KubeApi, api: Any, mood: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_lease, "RENEW_DEADLINE", 0.3)
    clock = OwnClock()
    one, two = lease(api, "one", clock), lease(api, "two", clock)
    assert await one.attempt()
    server.mood = mood
    with pytest.raises(Unavailable):
        await one.renew()
    assert not await two.attempt()
    await one.release()
    server.mood = "well"
    assert server.holder(NAME) == "one"
    assert await one.renew()


async def test_a_write_whose_answer_was_lost_is_recognised(server: KubeApi, api: Any) -> None:
    one = lease(api, "one", OwnClock())
    assert await one.attempt()
    server.put(NAME, {**server.leases[NAME]["spec"], "renewTime": "2026-01-01T00:00:00.000000Z"})
    assert await one.renew()


# ── with the epoch and the lock ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def refs(environment: dict[str, str]) -> AsyncIterator[References]:
    async with References(seconds=2.0) as open_refs:
        yield open_refs


class Rival:
    """A candidate that leads whenever it can, and writes down its epoch under the guard, again and again."""

    def __init__(self, election: KubernetesLease, url: str, db: Database, refs: References) -> None:
        holder = uuid4()
        self.leadership = Leadership(
            url, holder, db=db, election=election, lock=RedisLock(refs.high, holder), patience=1.0
        )
        self.epochs: list[int] = []

    async def stand(self) -> None:
        while True:
            try:
                async with self.leadership.term() as (term, keeper):
                    self.epochs.append(term.epoch)
                    while not keeper.done():
                        await self.write(term)
                    keeper.result()
            except (Deposed, Unavailable):
                continue

    async def write(self, term: Term) -> None:
        async with term.transaction() as tx:
            await tx.execute("insert into queues (name) values ($1)", f"{term.epoch}.{uuid4()}")
        await asyncio.sleep(0.01)


@asynccontextmanager
async def rivals(url: str, server: KubeApi, refs: References, duration: float) -> AsyncIterator[list[Rival]]:
    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "two"):
            api = await stack.enter_async_context(api_client(server))
            db = await stack.enter_async_context(Database(url, name="tf-candidate", size=2, statement_timeout="3s"))
            election = KubernetesLease(api, "here", NAME, name, duration=duration)
            made.append(Rival(election, url, db, refs))
        tasks = [asyncio.create_task(rival.stand()) for rival in made]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "RETRY", 0.05)
    monkeypatch.setattr(kubernetes_lease, "RETRY", 0.05)


async def writers(url: str) -> list[int]:
    """The epochs of all rows, in the order in which they were written."""
    async with Database(url, name="t") as db, db.connection() as tx:
        # A guard waits out the transactions of older epochs, so their xmin tells the order.
        rows = await tx.fetch(
            "select split_part(name, '.', 1)::int as epoch from queues where name like '%.%'"
            " order by xmin::text::bigint"
        )
    return [row["epoch"] for row in rows]


@pytest.mark.parametrize("harm", ["deleted", "handed over", "lock deleted", "both"])
async def test_one_epoch_writes_at_a_time_whatever_happens_to_lease_and_lock(
    environment: dict[str, str], server: KubeApi, refs: References, quick: None, harm: str
) -> None:
    url = environment["DATABASE_URL"]
    # Where nothing is to change hands, no pause of this process may look like the leader's death.
    duration = leadership.DURATION if harm == "lock deleted" else leadership.DURATION / 20
    async with rivals(url, server, refs, duration) as both:
        await happens(lambda: _more(url, 3), within=20)
        for turn in range(6):
            epochs = sorted(both[0].epochs + both[1].epochs)
            if harm in {"deleted", "both"}:
                server.delete(NAME)
            if harm == "handed over":
                server.hand_to(NAME, f"stranger {turn}")
            if harm in {"lock deleted", "both"}:
                await refs.high.client.delete("tf:leader")
            if harm == "handed over":
                await happens(lambda seen=epochs: _longer(both, len(seen)), within=20)
            after = len(await writers(url))
            await happens(lambda before=after: _more(url, before + 3), within=20)
    found = await writers(url)
    assert found == sorted(found), "a row of an older epoch came after one of a newer epoch"
    taken = both[0].epochs + both[1].epochs
    assert len(taken) == len(set(taken))
    if harm == "lock deleted":
        assert len(taken) == 1, "a lock that was lost is only written again"


async def _more(url: str, count: int) -> bool:
    return len(await writers(url)) >= count


async def _longer(both: list[Rival], count: int) -> bool:
    return len(both[0].epochs) + len(both[1].epochs) > count


async def test_who_cannot_reach_postgresql_gives_the_lease_back(
    environment: dict[str, str], server: KubeApi, api: Any, refs: References, quick: None
) -> None:
    with Proxy(environment["DATABASE_URL"]) as proxy:
        async with Database(proxy.url, name="tf-candidate", size=2, statement_timeout="3s") as db:
            election = KubernetesLease(api, "here", NAME, "one", duration=leadership.DURATION / 20)
            one = Rival(election, proxy.url, db, refs)
            async with one.leadership.term() as (_, keeper):
                assert server.holder(NAME) == "one"
                proxy.refusing = True
                proxy.cut()
                with pytest.raises(Deposed, match="PostgreSQL has not answered"):
                    await asyncio.wait_for(asyncio.shield(keeper), 15)
            assert server.holder(NAME) == ""
            again = asyncio.create_task(one.stand())
            proxy.refusing = False
            try:
                await happens(lambda: _longer([one, one], 0), within=20)
                assert one.epochs[0] == 2
            finally:
                again.cancel()
                await asyncio.wait([again])
