from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from core import leadership
from core import queue_manager as queue
from core.database import Database
from core.errors import Deposed
from core.references import References
from tests.kid import ROOT
from tests.leading import OwnClock, candidate, leading, term_of
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def refs(environment: dict[str, str]) -> AsyncIterator[References]:
    async with References(seconds=2.0) as open_refs:
        yield open_refs


@pytest.fixture
def url(environment: dict[str, str]) -> str:
    return environment["DATABASE_URL"]


async def test_only_what_a_candidate_saw_itself_makes_a_lease_old(url: str, refs: References) -> None:
    clock = OwnClock()
    async with candidate(url, refs, clock) as one, candidate(url, refs, clock) as two:
        assert await one.election.attempt()
        assert not await two.election.attempt()
        clock.advance(5.9)
        assert await one.election.renew()
        assert not await two.election.attempt()
        clock.advance(5.9)
        assert not await two.election.attempt()
        clock.advance(0.2)
        assert await two.election.attempt()
        assert not await one.election.renew()


async def test_a_candidate_that_was_paused_itself_waits_a_whole_lease(url: str, refs: References) -> None:
    clock = OwnClock()
    async with candidate(url, refs, clock) as one, candidate(url, refs, clock) as two:
        assert await one.election.attempt()
        clock.advance(3600)
        assert not await two.election.attempt()


async def test_a_clean_exit_hands_over_at_once(url: str, refs: References) -> None:
    clock = OwnClock()
    async with candidate(url, refs, clock) as one, candidate(url, refs, clock) as two:
        async with one.leadership.term() as (term, _):
            assert term.epoch == 1
            assert not await two.election.attempt()
            assert await refs.high.client.get("tf:leader") == f"1:{one.holder}".encode()
        assert await refs.high.client.get("tf:leader") is None
        assert await two.election.attempt()


async def test_a_lease_won_while_its_winner_was_stopped_is_given_back(
    url: str, refs: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnClock()
    async with candidate(url, refs, clock) as one, candidate(url, refs, clock) as two:
        campaign = one.election.campaign

        async def stopped() -> None:
            await campaign()
            assert not await two.election.attempt()
            raise asyncio.CancelledError

        monkeypatch.setattr(one.election, "campaign", stopped)
        with pytest.raises(asyncio.CancelledError):
            async with one.leadership.term():
                pass
        assert await two.election.attempt()


async def test_of_two_that_ask_together_one_is_chosen(url: str, refs: References) -> None:
    clock = OwnClock()
    async with AsyncExitStack() as stack:
        many = [await stack.enter_async_context(candidate(url, refs, clock)) for _ in range(5)]
        assert sum(await asyncio.gather(*(one.election.attempt() for one in many))) == 1


async def test_a_higher_epoch_overwrites_the_lock_and_a_lower_one_steps_down(url: str, refs: References) -> None:
    async with candidate(url, refs, OwnClock()) as old, candidate(url, refs, OwnClock()) as new:
        await old.lock.hold(1)
        await new.lock.hold(2)
        with pytest.raises(Deposed):
            await old.lock.hold(1)
        await old.lock.release(1)
        assert await refs.high.client.get("tf:leader") == f"2:{new.holder}".encode()


async def test_a_lock_that_cannot_be_reached_is_no_reason_to_stop(
    url: str, refs: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    del refs
    monkeypatch.setenv("REDIS_PORT_HIGH", "1")
    async with (
        References(seconds=0.2) as none,
        candidate(url, none, OwnClock()) as one,
        one.leadership.term() as (term, keeper),
    ):
        assert term.epoch == 1
        assert not keeper.done()


async def test_losing_the_lease_ends_the_term(url: str, refs: References) -> None:
    clock = OwnClock()
    async with (
        candidate(url, refs, clock) as one,
        candidate(url, refs, clock) as two,
        one.leadership.term() as (_, keeper),
    ):
        await two.election.attempt()
        clock.at += leadership.DURATION  # without waking the first one, which is busy
        assert await two.election.attempt()
        clock.advance(0)
        with pytest.raises(Deposed):
            await asyncio.wait_for(keeper, 5)


async def test_a_deposed_leader_writes_nothing(url: str, refs: References) -> None:
    clock = OwnClock()
    async with leading(url, refs, clock) as old, Database(url, name="t") as db:
        async with db.begin() as tx:
            await queue.take_epoch(tx, uuid4())
        with pytest.raises(Deposed):
            async with old.leading() as tx:
                await tx.execute("insert into queues (name) values ('mine')")
        async with db.connection() as tx:
            assert await tx.fetchval("select count(*) from queues where name = 'mine'") == 0


async def test_a_takeover_waits_for_an_open_transaction_and_then_that_leader_is_over(
    url: str, refs: References
) -> None:
    async with leading(url, refs, OwnClock()) as old, candidate(url, refs, OwnClock()) as new:
        async with old.leading() as tx:
            await tx.execute("insert into queues (name) values ('before')")
            taking = asyncio.create_task(new.leadership._take_epoch(_never()))
            await happens(lambda: _waiting(old.term.db))
        assert await asyncio.wait_for(taking, 5) == 2
        with pytest.raises(Deposed):
            async with old.leading() as tx:
                pass


async def test_a_leader_stopped_inside_a_transaction_is_ended(url: str, refs: References) -> None:
    """SIGSTOP of a real process that holds the leader's lock and reads its socket no more."""
    async with candidate(url, refs, OwnClock()) as one:
        epoch = await one.leadership._take_epoch(_never())
        with subprocess.Popen(  # noqa: ASYNC220 - its start is awaited below anyway
            [sys.executable, "-c", STOPPED, url, str(epoch)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as other:
            try:
                assert other.stdout is not None
                assert other.stdout.readline() == "inside\n"
                os.kill(other.pid, signal.SIGSTOP)
                assert await asyncio.wait_for(one.leadership._take_epoch(_never()), 15) == epoch + 1
            finally:
                other.kill()
    async with term_of(url, epoch + 1) as term, term.transaction() as tx:
        assert await tx.fetchval("select count(*) from queues where name = 'zombie'") == 0


STOPPED = """
import asyncio, sys
from core.database import Database
from core.leadership import Term

async def main(url, epoch):
    async with Database(url, name=f"tf-leader/{epoch}", size=1) as db:
        async with Term(epoch, db).transaction() as tx:
            await tx.execute("insert into queues (name) values ('zombie')")
            print("inside", flush=True)
            await asyncio.sleep(3600)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def _never() -> asyncio.Task[None]:
    async def forever() -> None:
        await asyncio.Event().wait()

    return asyncio.create_task(forever())


async def _waiting(db: Database) -> bool:
    async with db.connection() as tx:
        return bool(await tx.fetchval("select count(*) from pg_locks where locktype = 'advisory' and not granted"))
