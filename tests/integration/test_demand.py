"""What the operator reads: how much of each queue waits for a worker, and who lives in which pod."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core import config
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.domain.lifecycle import Cause
from core.domain.task import Ending, Reason, WorkerFace
from core.references import References
from tests.leading import Hand
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID


@pytest.fixture
async def hand(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hand]:
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    async with References() as refs, Database(environment["DATABASE_URL"], name="tf-test") as db:
        made = Hand(db, refs)
        await made.run("insert into queues (name) values ('default')")
        yield made


async def demand(hand: Hand, **more: Any) -> queue.Demand:
    async with hand.db.begin() as tx:
        [one] = await queue.demand(tx, ["default"], **more)
    return one


async def limits(hand: Hand, *, max_concurrent: int = 0, max_per_key: int = 1) -> None:
    async with hand.db.begin() as tx:
        await queue.set_limits(tx, "default", max_concurrent=max_concurrent, max_per_key=max_per_key)


async def register(hand: Hand, worker: UUID, *, types: tuple[str, ...], template: str) -> None:
    facts = {"pod": "p", "pod_uid": str(worker), **({"template": template} if template else {})}
    face = WorkerFace(
        id=worker, secret=SECRET,
        name="w", queues=("default",), sync_types=types, async_types=(), sync_slots=4, async_slots=0,
        facts=facts,
    )  # fmt: skip
    async with hand.db.begin() as tx:
        assert await queue.register_worker(tx, face)


async def age_announcement(hand: Hand, *, minutes: int) -> None:
    await hand.run("update queue_types set announced_at = announced_at - make_interval(mins => $1)", minutes)


async def complete(hand: Hand, tasks: list[UUID], worker: UUID, seconds: float) -> None:
    held = await hand.claim(tasks, worker)
    await hand.run(
        "update tasks set started_at = started_at - make_interval(secs => $2) where id = any ($1::uuid[])",
        tasks,
        seconds,
    )
    endings = [
        Ending(id=one.id, attempt=1, claim=one.claim, cause=Cause.SUCCEED, reason=Reason.RETURNED) for one in held
    ]
    async with hand.db.begin() as tx:
        assert len(await queue.finish(tx, endings)) == len(tasks)


async def test_an_empty_queue_asks_for_nothing(hand: Hand) -> None:
    one = await demand(hand)
    assert one == queue.Demand(
        queue="default", paused=False, max_concurrent=0, pending=0, queued=0, running=0, failed=0, unknown=0,
        unknown_types=(), unknown_seconds=None, announced_seconds=None, announced_template="", capped=False,
        oldest_queued_seconds=None, finished_minute=0, run_seconds=None,
    )  # fmt: skip


async def test_every_queue_comes_and_one_that_nobody_named_does_not(hand: Hand) -> None:
    await hand.run("insert into queues (name, paused, max_concurrent) values ('a', true, 7)")
    async with hand.db.begin() as tx:
        assert [(one.queue, one.paused, one.max_concurrent) for one in await queue.demand(tx)] == [
            ("a", True, 7), ("default", False, 0),
        ]  # fmt: skip
        assert await queue.demand(tx, ["nobody"]) == []


async def test_it_counts_what_waits_runs_and_ended(hand: Hand) -> None:
    worker = await hand.worker()
    tasks = await hand.submit(7)
    await hand.submit(2, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
    await hand.run("update tasks set updated_at = updated_at - interval '1 minute' where id = $1", tasks[4])
    [failed] = await hand.claim(tasks[:1], worker)
    await complete(hand, tasks[1:3], worker, 4.0)
    await hand.claim(tasks[3:4], worker)
    async with hand.db.begin() as tx:
        await queue.finish(
            tx, [Ending(id=failed.id, attempt=1, claim=failed.claim, cause=Cause.GIVE_UP, reason=Reason.ERROR)]
        )
    one = await demand(hand)
    assert (one.pending, one.queued, one.running, one.failed, one.finished_minute) == (2, 3, 1, 1, 3)
    assert one.oldest_queued_seconds is not None
    assert 60 <= one.oldest_queued_seconds < 90
    assert one.run_seconds is not None
    assert 4.0 <= one.run_seconds < 5.0
    await hand.change_ended("update tasks set finished_at = finished_at - interval '2 minutes'")
    assert (await demand(hand)).finished_minute == 0
    await hand.change_ended("update tasks set finished_at = finished_at - interval '1 hour'")
    assert (await demand(hand)).failed == 0


async def test_one_run_of_a_day_does_not_decide_the_mean(hand: Hand) -> None:
    worker = await hand.worker()
    await complete(hand, await hand.submit(39), worker, 1.0)
    await complete(hand, await hand.submit(1), worker, 86400.0)
    seconds = (await demand(hand)).run_seconds
    assert seconds is not None
    assert 1.0 <= seconds < 2.0


async def test_counting_stops_and_says_so(hand: Hand) -> None:
    await hand.submit(6)
    one = await demand(hand, most=5)
    assert (one.queued, one.capped) == (5, True)
    one = await demand(hand, most=7)
    assert (one.queued, one.capped) == (6, False)


@pytest.mark.parametrize("key", ["", "k"])
async def test_ten_thousand_of_a_type_that_nobody_runs_do_not_count(hand: Hand, key: str) -> None:
    await hand.worker(types=["m:known", "n:known"])
    for kind, number in (("a:none", 3000), ("m:m", 3000), ("z:none", 4000)):
        await hand.submit(number, kind=kind, concurrency_key=key)
    await hand.submit(2, kind="m:known")
    await hand.submit(1, kind="n:known", concurrency_key="mine")
    one = await demand(hand)
    assert one.queued == 3
    assert (one.unknown, one.unknown_types) == (10_000, ("a:none", "m:m", "z:none"))
    assert one.oldest_queued_seconds is not None
    assert one.oldest_queued_seconds < 60


async def test_every_type_is_known_until_somebody_served_the_queue(hand: Hand) -> None:
    await hand.submit(2, kind="x:y")
    await hand.submit(1, kind="u:v", concurrency_key="k")
    one = await demand(hand)
    assert (one.queued, one.unknown) == (3, 0)
    assert one.oldest_queued_seconds is not None


async def test_what_the_newest_worker_announced_outlives_it(hand: Hand) -> None:
    await hand.submit(2, kind="a:b")
    await hand.submit(3, kind="c:d")
    worker = await hand.worker(types=["a:b"])
    async with hand.db.begin() as tx:
        await queue.retire_worker(tx, worker, secret=SECRET)
    one = await demand(hand)
    assert (one.queued, one.unknown, one.unknown_types) == (2, 3, ("c:d",))
    await hand.worker(types=["c:d"])  # of the live ones only what they say counts
    one = await demand(hand)
    assert (one.queued, one.unknown, one.unknown_types) == (3, 2, ("a:b",))


async def test_live_workers_of_two_builds_know_what_either_knows(hand: Hand) -> None:
    old = await hand.worker(types=["a:b"])
    await hand.worker(types=["c:d"])
    await hand.submit(1, kind="a:b")
    await hand.submit(1, kind="c:d")
    async with hand.db.begin() as tx:
        await queue.cordon(tx, [old])
    assert (await demand(hand)).queued == 2
    kept = "select types from queue_types where queue = 'default'"
    assert [list(row["types"]) for row in await hand.run(kept)] == [["c:d"]]
    await hand.worker(types=["a:b"], worker=old)  # it says again what it said: the newer build stands
    assert [list(row["types"]) for row in await hand.run(kept)] == [["c:d"]]
    await hand.worker(types=["a:b", "e:f"], worker=old)
    assert [list(row["types"]) for row in await hand.run(kept)] == [["a:b", "e:f"]]


async def test_every_registration_renews_when_and_from_which_template_a_queue_was_served(hand: Hand) -> None:
    old, new = uuid4(), uuid4()
    await register(hand, old, types=("a:b",), template="1111")
    await register(hand, new, types=("c:d",), template="2222")
    await age_announcement(hand, minutes=2)
    await register(hand, old, types=("a:b",), template="1111")  # the same types again: they do not count, the rest does
    one = await demand(hand)
    assert one.announced_template == "1111"
    assert one.announced_seconds is not None
    assert one.announced_seconds < 60
    kept = "select types from queue_types where queue = 'default'"
    assert [list(row["types"]) for row in await hand.run(kept)] == [["c:d"]]
    await register(hand, uuid4(), types=("c:d",), template="")
    assert (await demand(hand)).announced_template == ""


async def test_the_oldest_task_of_an_unknown_type_tells_how_long_it_waits(hand: Hand) -> None:
    await register(hand, uuid4(), types=("m:known",), template="1111")
    await age_announcement(hand, minutes=2)
    assert (await demand(hand)).unknown_seconds is None
    below = await hand.submit(1, kind="a:new")
    await hand.submit(1, kind="z:new", concurrency_key="k")
    one = await demand(hand)
    assert one.unknown == 2
    assert one.unknown_seconds is not None
    assert one.announced_seconds is not None
    assert one.unknown_seconds < 60 < one.announced_seconds
    await hand.run("update tasks set updated_at = updated_at - interval '3 minutes' where id = $1", below[0])
    one = await demand(hand)
    assert one.unknown_seconds is not None
    assert one.unknown_seconds >= 180
    await hand.run("update tasks set scheduled_at = scheduled_at - interval '5 minutes' where concurrency_key = 'k'")
    one = await demand(hand)
    assert one.unknown_seconds is not None
    assert one.unknown_seconds >= 300


async def test_a_worker_that_can_run_nothing_announces_nothing(hand: Hand) -> None:
    await hand.worker(types=[])
    await hand.submit(1)
    assert await hand.run("select 1 from queue_types") == []
    assert (await demand(hand)).queued == 1


async def test_gated_tasks_count_as_far_as_their_keys_would_let_them(hand: Hand) -> None:
    await hand.submit(5, concurrency_key="a")
    await hand.submit(2, concurrency_key="b")
    await hand.submit(1, concurrency_key="c", scheduled_at=datetime.now(UTC) + timedelta(hours=1))
    await hand.run("update tasks set scheduled_at = scheduled_at - interval '1 minute' where concurrency_key = 'b'")
    one = await demand(hand)
    assert (one.pending, one.queued) == (8, 2)
    assert one.oldest_queued_seconds is not None
    assert one.oldest_queued_seconds >= 60
    await limits(hand, max_per_key=3)
    assert (await demand(hand)).queued == 5
    await limits(hand, max_per_key=0)
    assert (await demand(hand)).queued == 7


async def test_gated_tasks_count_as_far_as_their_queue_has_room(hand: Hand) -> None:
    await limits(hand, max_concurrent=3)
    tasks = await hand.submit(10)
    one = await demand(hand)
    assert (one.pending, one.queued, one.max_concurrent) == (10, 3, 3)
    worker = await hand.worker()
    async with hand.db.begin() as tx:
        key = GateKey(queue="default", owner_id=1, key="")
        assert len(await queue.promote_gated(tx, [key], types=["a:b"], most=2)) == 2
    one = await demand(hand)
    assert (one.pending, one.queued) == (8, 3)  # two are QUEUED, and there is room for one more
    queued = [task for task, state in zip(tasks, await hand.statuses(tasks), strict=True) if state == "QUEUED"]
    await hand.claim(queued, worker)
    one = await demand(hand)
    assert (one.queued, one.running) == (1, 2)


async def test_a_key_that_is_in_use_lets_nothing_more_through(hand: Hand) -> None:
    await hand.worker()
    await hand.submit(4, concurrency_key="k")
    async with hand.db.begin() as tx:
        keys = await queue.walk_gates(tx)
        assert len(await queue.promote_gated(tx, keys, types=["a:b"])) == 1
    assert (await demand(hand)).queued == 1


async def test_delayed_keys_hide_no_key_that_is_due(hand: Hand) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    await hand.run(
        "insert into tasks (id, owner_id, type, queue, payload, payload_bytes, status, gated, concurrency_key,"
        " scheduled_at) select gen_random_uuid(), 0, 'a:b', 'default', '{}', 2, 'PENDING', true, 'k' || n, $1"
        " from generate_series(1, 3000) as n",
        later,
    )
    await hand.submit(1, concurrency_key="due")
    one = await demand(hand, most=100)
    assert (one.queued, one.capped) == (1, True)


async def test_workers_in_pods_are_told_with_what_they_hold(hand: Hand) -> None:
    await hand.worker()  # in no pod
    faces = [
        WorkerFace(
            id=uuid4(), secret=SECRET, name="w", queues=("default",), sync_types=("a:b",), async_types=(), sync_slots=4,
            async_slots=0, facts={"pod": f"p{number}", "pod_uid": f"u{number}", "namespace": "n", "node": "here"},
        )
        for number in range(4)
    ]  # fmt: skip
    async with hand.db.begin() as tx:
        for face in faces:
            await queue.register_worker(tx, face)
    await hand.claim(await hand.submit(2), faces[0].id)
    async with hand.db.begin() as tx:
        await queue.cordon(tx, [faces[1].id])
        await queue.drain_worker(tx, faces[2].id, secret=SECRET)
        await queue.retire_worker(tx, faces[3].id, secret=SECRET)
    async with hand.db.begin() as tx:
        found = {one.pod: one for one in await queue.pod_workers(tx)}
    assert {pod: (one.pod_uid, one.state, one.running) for pod, one in found.items()} == {
        "p0": ("u0", "alive", 2), "p1": ("u1", "cordoned", 0), "p2": ("u2", "draining", 0),
    }  # fmt: skip
    assert (found["p0"].worker, found["p0"].namespace, list(found["p0"].queues)) == (faces[0].id, "n", ["default"])
    assert 0 <= found["p0"].beat_age < 60
    async with hand.db.begin() as tx:
        assert await queue.served_queues(tx) == {"default"}
