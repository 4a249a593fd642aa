"""What leaders and the operator hold over a round trip: this, and nothing beside it (docs/decisions says why)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core import config
from core import queue_manager as queue
from core.database import Database
from core.domain.gates import GateKey
from core.references import References
from services.scheduler.ticks import cancels, due, expire, gates, overdue, rescue, retention, sweep, watch
from tests.integration.test_operator_verbs import SETTINGS, SOURCE
from tests.leading import Hand, OwnClock, leading
from tests.round_trips import GATE, QUEUES, TASKS, watched

if TYPE_CHECKING:
    import pytest

TICKS = (watch, rescue, due, gates, sweep, expire, cancels, overdue, retention)
LEADER = {"due": {TASKS}, "gates": {TASKS, GATE}, "sweep": {TASKS}}
LEADER |= {"rescue": {TASKS}, "expire": {TASKS}, "cancels": {TASKS}, "retention": {TASKS}}
OPERATOR = {"settings": {TASKS, QUEUES, GATE}, "release": {QUEUES}, "purge": {TASKS}}


async def test_what_leaders_and_the_operator_hold_is_known(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFLOW_REDIS", "off")
    config.reload()
    with watched(environment["DATABASE_URL"]) as (proxy, seen):
        async with References() as refs, Database(environment["DATABASE_URL"], name="tf-test") as db:
            hand = Hand(db, refs)
            await hand.worker()
            await hand.submit(2, concurrency_key="k")
            async with leading(proxy.url, refs, OwnClock()) as ctx:
                await watch.tick(ctx)
                ctx.free([GateKey(queue="default", owner_id=1, key="k")])
                for tick in TICKS:
                    seen.step = tick.__name__.rpartition(".")[2]
                    await tick.tick(ctx)
        assert {step: held for step, held in seen.held.items() if held} == LEADER
        seen.held.clear()
        async with Database(proxy.url, name="tf-operator") as db:
            async with db.begin() as tx:
                seen.step = "settings"
                await queue.apply_taskqueue(tx, SETTINGS, source=SOURCE)
            async with db.begin() as tx:
                seen.step = "purge"
                await queue.purge_queue(tx, "default")
            async with db.begin() as tx:
                seen.step = "release"
                await queue.release_taskqueue(tx, SETTINGS.queue, SOURCE["uid"])
        assert {step: held for step, held in seen.held.items() if held} == OPERATOR
