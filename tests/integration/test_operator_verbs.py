"""The operator's verbs: its epoch, cordons, causes of death, and the settings that a TaskQueue brings."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import config, search
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, WorkerFace
from core.errors import Conflict, Deposed
from core.nudging import hear
from core.references import References
from core.verbs import rows
from tests.leading import Hand
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

SETTINGS = queue.QueueSettings(
    queue="text", paused=False, max_concurrent=0, max_per_key=1, max_attempts=5, timeout_seconds=0,
    completed_seconds=604800, failed_seconds=2592000, concurrency=4,
)  # fmt: skip
SOURCE = {"namespace": "n", "name": "text", "uid": "u1", "generation": 1}


@pytest.fixture
async def hand(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hand]:
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    async with References() as refs, Database(environment["DATABASE_URL"], name="tf-test") as db:
        yield Hand(db, refs)


async def test_operator_and_scheduler_have_an_epoch_each(hand: Hand) -> None:
    async with hand.db.begin() as tx:
        assert await queue.take_epoch(tx, uuid4(), name=queue.OPERATOR) == 1
        assert await queue.take_epoch(tx, uuid4()) == 1
        assert await queue.take_epoch(tx, uuid4(), name=queue.OPERATOR) == 2
    async with hand.db.begin() as tx:
        await queue.guard(tx, 1)
        await queue.guard(tx, 2, name=queue.OPERATOR)
        with pytest.raises(Deposed):
            await queue.guard(tx, 1, name=queue.OPERATOR)


async def test_an_operator_in_a_transaction_holds_up_the_next_operator_and_no_scheduler(hand: Hand) -> None:
    async with hand.db.begin() as tx:
        await queue.take_epoch(tx, uuid4(), name=queue.OPERATOR)

    async def take(name: str) -> int:
        async with hand.db.begin() as tx:
            return await queue.take_epoch(tx, uuid4(), name=name)

    async with hand.db.begin() as tx:
        await queue.guard(tx, 1, name=queue.OPERATOR)
        assert await take(queue.LEADER) == 1
        next_operator = asyncio.create_task(take(queue.OPERATOR))
        waits = "select 1 from pg_locks where locktype = 'advisory' and not granted and objid = 3"
        while not await hand.run(waits):
            assert not next_operator.done()
    assert await next_operator == 2


async def pod_worker(hand: Hand, uid: str) -> UUID:
    face = WorkerFace(
        id=uuid4(), secret=SECRET,
        name="w", queues=("default",), sync_types=("a:b",), async_types=(), sync_slots=4, async_slots=0,
        facts={"pod": "p", "pod_uid": uid, "namespace": "n"},
    )  # fmt: skip
    async with hand.db.begin() as tx:
        assert await queue.register_worker(tx, face)
    return face.id


async def asked(hand: Hand, worker: UUID) -> Any:
    async with hand.db.begin() as tx:
        return await queue.beat(tx, worker, secret=SECRET, free_sync=4, free_async=0)


async def test_a_cordoned_worker_beats_keeps_what_it_runs_and_claims_nothing(hand: Hand) -> None:
    worker = await hand.worker()
    first, second = await hand.submit(2)
    [held] = await hand.claim([first], worker)
    async with hand.db.begin() as tx:
        assert await queue.cordon(tx, [worker]) == [worker]
        assert await queue.cordon(tx, [worker]) == []
        assert await queue.served_queues(tx) == frozenset()
    answer = await asked(hand, worker)
    assert (answer.alive, answer.cordoned, answer.draining) == (True, True, False)
    assert await hand.claim([second], worker) == []
    async with hand.db.begin() as tx:
        assert await queue.rescue(tx) == []
        ending = Ending(id=first, attempt=1, claim=held.claim, cause=Cause.SUCCEED, reason=Reason.RETURNED)
        assert len(await queue.finish(tx, [ending])) == 1
        assert await queue.uncordon(tx, [worker]) == [worker]
        assert await queue.uncordon(tx, [worker]) == []
    assert not (await asked(hand, worker)).cordoned
    assert len(await hand.claim([second], worker)) == 1


async def test_a_cordon_is_no_way_back_from_leaving_or_death(hand: Hand) -> None:
    leaving, dead, cordoned = [await hand.worker() for _ in range(3)]
    async with hand.db.begin() as tx:
        await queue.drain_worker(tx, leaving, secret=SECRET)
        await queue.retire_worker(tx, dead, secret=SECRET)
        assert await queue.cordon(tx, [leaving, dead, cordoned, uuid4()]) == [cordoned]
        assert await queue.drain_worker(tx, cordoned, secret=SECRET)
        assert await queue.uncordon(tx, [leaving, dead, cordoned]) == []


async def test_a_cordoned_worker_that_stands_still_dies_like_any_other(hand: Hand) -> None:
    worker = await hand.worker()
    async with hand.db.begin() as tx:
        await queue.cordon(tx, [worker])
        [row] = await queue.live_workers(tx)
        assert row.state == "cordoned"
        assert await queue.mark_dead(tx, worker, row.beat_seq)
    assert not (await asked(hand, worker)).alive


async def test_a_worker_hears_at_once_that_its_next_beat_has_news(hand: Hand) -> None:
    worker = await hand.worker()
    nudged = asyncio.Event()
    connection = await hand.db.own_connection()
    try:
        await hear(connection, worker, nudged.set)
        async with hand.db.begin() as tx:
            await queue.cordon(tx, [worker])
        await asyncio.wait_for(nudged.wait(), 10)
    finally:
        await connection.close()


async def lose(hand: Hand, worker: UUID) -> None:
    async with hand.db.begin() as tx:
        await queue.retire_worker(tx, worker, secret=SECRET)
        await queue.rescue(tx)


async def attempts(hand: Hand, task: UUID) -> list[tuple[Any, Any]]:
    async with hand.db.connection() as tx:
        return [(row["cause"], row["death"]) for row in await search.attempts(tx, task)]


async def note(hand: Hand, uid: str, before: datetime | None = None, reason: str = "OOMKilled") -> int:
    async with hand.db.begin() as tx:
        return await queue.note_death(tx, uid, before=before, reason=reason, message="137")


async def test_the_cause_of_a_death_is_told_with_the_attempt_that_it_ended(hand: Hand) -> None:
    worker = await pod_worker(hand, "u")
    kept, lost = await hand.submit(2)
    for held in await hand.claim([kept, lost], worker):
        if held.id == kept:
            async with hand.db.begin() as tx:
                await queue.finish(
                    tx, [Ending(id=kept, attempt=1, claim=held.claim, cause=Cause.GIVE_UP, reason=Reason.ERROR)]
                )
    await lose(hand, worker)
    assert await attempts(hand, lost) == [("worker_lost", None)]
    assert await note(hand, "u") == 1
    assert await note(hand, "u", reason="Evicted") == 0  # the first word stays
    assert await attempts(hand, lost) == [("worker_lost", {"reason": "OOMKilled", "message": "137"})]
    assert await attempts(hand, kept) == [("error", None)]


async def test_an_attempt_that_a_leaving_worker_gave_back_tells_why_it_left(hand: Hand) -> None:
    worker = await pod_worker(hand, "u")
    [task] = await hand.submit()
    [held] = await hand.claim([task], worker)
    async with hand.db.begin() as tx:
        given = Ending(id=task, attempt=1, claim=held.claim, cause=Cause.RELEASE, reason=Reason.RELEASED)
        await queue.finish(tx, [given])
    await lose(hand, worker)
    await note(hand, "u", reason="Evicted")
    assert await attempts(hand, task) == [("released", {"reason": "Evicted", "message": "137"})]
    await hand.run("update workers set beat_at = clock_timestamp() + interval '1 minute'")
    assert await attempts(hand, task) == [("released", None)], "it lived on after that, and died of something later"


async def test_a_death_that_is_known_before_the_rescue_is_in_the_event(hand: Hand) -> None:
    worker = await pod_worker(hand, "u")
    [task] = await hand.submit()
    await hand.claim([task], worker)
    await note(hand, "u")
    assert await attempts(hand, task) == [(None, {"reason": "OOMKilled", "message": "137"})]
    await lose(hand, worker)
    async with hand.db.connection() as tx:
        told = {row["event_type"]: row["message"] for row in await search.events(tx, task)}
    assert told["RESCUED"] == "OOMKilled: 137"


async def test_a_rescue_without_a_known_death_says_nothing_of_it(hand: Hand) -> None:
    worker = await pod_worker(hand, "u")
    [task] = await hand.submit()
    await hand.claim([task], worker)
    await lose(hand, worker)
    async with hand.db.connection() as tx:
        assert {row["event_type"]: row["message"] for row in await search.events(tx, task)}["RESCUED"] is None


async def test_a_container_that_began_after_the_death_did_not_die_of_it(hand: Hand) -> None:
    first = await pod_worker(hand, "u")
    await hand.run(
        "update workers set created_at = created_at - interval '1 hour', beat_at = beat_at - interval '9 minutes'"
    )
    second = await pod_worker(hand, "u")
    stranger = await pod_worker(hand, "v")
    assert await note(hand, "u", before=datetime.now(UTC) - timedelta(minutes=5)) == 1
    assert await note(hand, "u", before=datetime.now(UTC) + timedelta(minutes=5), reason="Error") == 1
    reasons = {
        row["id"]: row["reason"] for row in await hand.run("select id, death ->> 'reason' as reason from workers")
    }
    assert reasons == {first: "OOMKilled", second: "Error", stranger: None}


async def test_an_id_whose_process_went_on_under_another_did_not_die_with_it(hand: Hand) -> None:
    old = await pod_worker(hand, "u")
    await hand.run(
        "update workers set state = 'dead', created_at = created_at - interval '2 hours',"
        " beat_at = beat_at - interval '1 hour'"
    )
    new = await pod_worker(hand, "u")
    assert await note(hand, "u") == 1
    reasons = {
        row["id"]: row["reason"] for row in await hand.run("select id, death ->> 'reason' as reason from workers")
    }
    assert reasons == {old: None, new: "OOMKilled"}


async def test_workers_with_a_cause_of_death_are_kept_for_thirty_days(hand: Hand) -> None:
    plain, noted = await hand.worker(), await pod_worker(hand, "u")
    await note(hand, "u")
    for worker in (plain, noted):
        await lose(hand, worker)
    for days, left in ((2, [noted]), (29, [noted]), (31, [])):
        await hand.run("update workers set beat_at = clock_timestamp() - make_interval(days => $1)", days)
        async with hand.db.begin() as tx:
            await queue.forget_workers(tx, age=86400.0)
        assert [row["id"] for row in await hand.run("select id from workers")] == left


async def apply(hand: Hand, *, source: dict[str, object] | None = None, **changes: Any) -> bool:
    async with hand.db.begin() as tx:
        return await queue.apply_taskqueue(tx, replace(SETTINGS, **changes), source=source or SOURCE)


async def row_of(hand: Hand, queue_name: str = "text") -> dict[str, Any]:
    [row] = await hand.run("select * from queues where name = $1", queue_name)
    return dict(row)


async def test_a_taskqueue_makes_its_queue_and_says_what_is_set_there(hand: Hand) -> None:
    assert await apply(
        hand, max_concurrent=7, max_per_key=2, timeout_seconds=1.5, completed_seconds=10, failed_seconds=20
    )
    row = await row_of(hand)
    told = {
        "paused": False, "max_concurrent": 7, "max_per_key": 2, "default_max_attempts": 5,
        "default_timeout_seconds": 1.5, "completed_seconds": 10, "failed_seconds": 20, "concurrency": 4,
    }  # fmt: skip
    assert {name: row[name] for name in told} == told
    async with hand.db.begin() as tx:
        assert await queue.queue_concurrency(tx, "text") == 4
        assert await queue.queue_concurrency(tx, "nobody") is None
    assert await apply(hand)
    assert (await row_of(hand))["default_timeout_seconds"] is None


async def test_the_same_again_changes_nothing_and_a_new_generation_is_only_noted(hand: Hand) -> None:
    assert await apply(hand)
    before = await row_of(hand)
    assert not await apply(hand)
    assert await row_of(hand) == before
    assert not await apply(hand, source={**SOURCE, "generation": 2})
    assert '"generation": 2' in (await row_of(hand))["taskqueue"]


async def pause(hand: Hand, *, paused: bool) -> None:
    async with hand.db.begin() as tx:
        await queue.set_paused(tx, "text", paused=paused)


async def test_a_pause_by_rest_stays_until_somebody_edits_the_spec(hand: Hand) -> None:
    await apply(hand)
    await pause(hand, paused=True)
    assert not await apply(hand)
    assert await apply(hand, max_concurrent=3, source={**SOURCE, "generation": 2})
    assert (await row_of(hand))["paused"]
    assert await apply(hand, paused=True)
    assert (await row_of(hand))["paused"]
    await pause(hand, paused=False)
    assert not await apply(hand, paused=True)
    assert not (await row_of(hand))["paused"]
    assert await apply(hand, paused=False)
    assert not (await row_of(hand))["paused"]
    assert await apply(hand, paused=True)
    assert (await row_of(hand))["paused"]


async def test_a_taskqueue_that_comes_to_a_paused_queue_leaves_it_paused(hand: Hand) -> None:
    await hand.run("insert into queues (name, paused) values ('text', true)")
    assert await apply(hand)
    assert (await row_of(hand))["paused"]


async def test_a_queue_has_one_taskqueue_until_that_is_gone(hand: Hand) -> None:
    await apply(hand)
    other = {**SOURCE, "name": "other", "uid": "u2"}
    with pytest.raises(Conflict, match="n/text"):
        await apply(hand, source=other, max_concurrent=3)
    async with hand.db.begin() as tx:
        await queue.release_taskqueue(tx, "text", "u2")  # not its own
    with pytest.raises(Conflict):
        await apply(hand, source=other)
    async with hand.db.begin() as tx:
        await queue.release_taskqueue(tx, "text", "u1")
    assert (await row_of(hand))["default_max_attempts"] == 5
    assert await apply(hand, source=other, max_attempts=6)
    assert (await row_of(hand))["default_max_attempts"] == 6


async def test_of_two_taskqueues_that_come_at_once_one_has_the_queue(hand: Hand) -> None:
    async def one(uid: str) -> bool:
        with suppress(Conflict):
            return await apply(hand, source={**SOURCE, "uid": uid})
        return False

    assert sorted(await asyncio.gather(one("u1"), one("u2"))) == [False, True]


async def test_a_new_cap_brings_what_waits_under_the_gate(hand: Hand) -> None:
    worker = await hand.worker(queues=["text"])
    tasks = await hand.submit(3, queue="text")
    await hand.claim(tasks[:1], worker)
    assert await apply(hand, max_concurrent=2)
    assert await hand.statuses(tasks) == ["IN_PROGRESS", "PENDING", "PENDING"]
    async with hand.db.begin() as tx:
        moved = await queue.promote_gated(tx, [GateKey(queue="text", owner_id=1, key="")], types=["a:b"])
    assert len(moved) == 1


async def test_a_claim_brings_the_queues_defaults(hand: Hand) -> None:
    await apply(hand, timeout_seconds=2.5)
    worker = await hand.worker(queues=["text", "default"])
    [task], [plain] = await hand.submit(queue="text"), await hand.submit()
    claimed = {one.id: one for one in await hand.claim([task, plain], worker)}
    assert (claimed[task].default_max_attempts, claimed[task].default_timeout_seconds) == (5, 2.5)
    assert (claimed[plain].default_max_attempts, claimed[plain].default_timeout_seconds) == (None, None)
    waited = claimed[task].waited
    assert waited is not None
    assert 0 <= waited < 60
    async with hand.db.begin() as tx:
        [again] = await queue.claimed_under(tx, [task], claimed[task].claim, worker=worker, secret=SECRET)
    assert again == claimed[task]._replace(waited=None)
    assert rows.claimed([], task) == []


async def test_a_purge_cancels_what_waits_and_nothing_else(hand: Hand) -> None:
    worker = await hand.worker(queues=["text", "default"])
    running = await hand.submit(queue="text")
    await hand.claim(running, worker)
    waiting = [
        *await hand.submit(2, queue="text"),
        *await hand.submit(queue="text", scheduled_at=datetime.now(UTC) + timedelta(hours=1)),
        *await hand.submit(queue="text", concurrency_key="k"),
        *(blocked := await hand.submit(queue="text")),
    ]
    await hand.run("update tasks set status = 'BLOCKED' where id = any ($1::uuid[])", blocked)
    others = await hand.submit()

    async def purge(limit: int) -> int:
        async with hand.db.begin() as tx:
            return await queue.purge_queue(tx, "text", limit)

    assert [await purge(3), await purge(3), await purge(3)] == [3, 2, 0]
    assert set(await hand.statuses(waiting)) == {"CANCELLED"}
    assert await hand.statuses(running + others) == ["IN_PROGRESS", "QUEUED"]
    assert len(await hand.run("select 1 from task_events where event_type = 'CANCELLED'")) == len(waiting)


async def test_room_that_a_key_leaves_goes_to_the_others_of_its_queue(hand: Hand) -> None:
    await apply(hand, max_concurrent=2)
    for key in ("b", "c", "d"):
        await hand.submit(2, queue="text", concurrency_key=key)

    async def promote(*keys: str) -> list[str]:
        wanted = [GateKey(queue="text", owner_id=1, key=key) for key in keys]
        async with hand.db.begin() as tx:
            return sorted(row.concurrency_key for row in await queue.promote_gated(tx, wanted, types=["a:b"]))

    async def end(key: str) -> None:
        """End what has been let through of a key."""
        ids = await hand.run("select id from tasks where status = 'QUEUED' and concurrency_key = $1", key)
        async with hand.db.begin() as tx:
            assert len(await queue.cancel(tx, [row["id"] for row in ids], owner_id=None, by="test")) == 1

    assert await promote("a") == ["b", "c"]  # nothing waits there, so the oldest of the others go
    assert await promote("a") == []
    await end("b")
    assert await promote("c") == ["b"]  # c may have one at a time, and has it
    await end("c")
    assert await promote("d") == ["d"]  # its own comes first


async def test_a_queue_without_a_cap_gives_nothing_to_the_neighbours_of_a_key(hand: Hand) -> None:
    await hand.submit(2, queue="text", concurrency_key="b")
    async with hand.db.begin() as tx:
        assert await queue.promote_gated(tx, [GateKey(queue="text", owner_id=1, key="a")], types=["a:b"]) == []


async def test_a_task_that_is_named_twice_is_claimed_once(hand: Hand) -> None:
    [task, other] = await hand.submit(2)
    worker = await hand.worker(queues=["default"])
    assert [one.id for one in await hand.claim([task, other, task], worker)] == [task, other]
