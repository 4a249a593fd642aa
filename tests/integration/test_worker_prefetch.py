"""Short tasks wait in the child that will run them: quick, and at nobody's cost when one of them is not short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lookout import happens
from tests.working import House, WorkerProcess, house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from uuid import UUID

WARM = 200  # short runs after which a child holds as many as it ever may
NOOPS = ["noop", "anoop"]
ONE = {"TASKFLOW_WORKER_CHILDREN": "1", "TASKFLOW_WORKER_SLOTS": "1"}  # async tasks run one by one, too


@pytest.fixture
async def home(database_url: str) -> AsyncIterator[House]:
    async with house(database_url) as there:
        yield there


async def claims(home: House, ids: Sequence[UUID]) -> int:
    async with home.database.connection() as tx:
        found = await tx.fetchval(
            "select count(distinct claim) from task_events where task_id = any ($1::uuid[]) and event_type = 'STARTED'",
            list(ids),
        )
    return int(found)


@pytest.mark.parametrize("noop", NOOPS)
async def test_short_tasks_share_claims(home: House, database_url: str, noop: str) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, **ONE):
        await home.ended(await home.submit(noop, WARM))
        ids = await home.submit(noop, 600)
        rows = await home.ended(ids)
    assert {(row["status"], row["attempt"]) for row in rows} == {("COMPLETED", 1)}
    assert await claims(home, ids) < len(ids) / 10


async def test_what_waits_behind_a_long_task_is_given_back_uncharged(
    home: House, database_url: str, tmp_path: Path
) -> None:
    over = tmp_path / "over"
    with WorkerProcess({"DATABASE_URL": database_url}):
        await home.ended(await home.submit("noop", WARM))
        [long] = await home.submit("stay", until=str(over))
        short = await home.submit("noop", 100)
        rows = await home.ended(short)
        assert (await home.row(long))["status"] == "IN_PROGRESS", "the short ones did not wait for it"
        assert {(row["status"], row["retry_count"]) for row in rows} == {("COMPLETED", 0)}
        again = [row["id"] for row in rows if row["attempt"] > 1]
        assert {cause for task in again for kind, cause in await home.events(task) if kind == "RELEASED"} <= {
            "released"
        }
        over.touch()
        [ended] = await home.ended([long])
    assert (ended["status"], ended["attempt"]) == ("COMPLETED", 1)


async def test_what_waits_behind_long_async_tasks_is_given_back_and_the_slots_are_kept(
    home: House, database_url: str, tmp_path: Path
) -> None:
    over = tmp_path / "over"
    with WorkerProcess({"DATABASE_URL": database_url}, TASKFLOW_WORKER_CHILDREN="1", TASKFLOW_WORKER_SLOTS="4"):
        await home.ended(await home.submit("anoop", WARM))
        long = await home.submit("abide", 4, until=str(over))
        short = await home.submit("anoop", 100)
        for task in long:
            await home.becomes(task, "IN_PROGRESS")

        async def back() -> bool:
            return await home.statuses(short) == {"QUEUED"}

        await happens(back)
        assert await home.statuses(long) == {"IN_PROGRESS"}
        over.touch()
        rows = await home.ended([*short, *long])
    assert {(row["status"], row["retry_count"], row["worker_deaths"]) for row in rows} == {("COMPLETED", 0, 0)}


@pytest.mark.parametrize(("noop", "sleep"), [("noop", "sleep"), ("anoop", "asleep")])
async def test_tasks_that_turn_out_longer_are_given_back_though_one_after_the_other_ends(
    home: House, database_url: str, noop: str, sleep: str
) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, **ONE):
        await home.ended(await home.submit(noop, WARM))
        rows = await home.ended(await home.submit(sleep, 20, seconds=0.3))
    assert {(row["status"], row["retry_count"]) for row in rows} == {("COMPLETED", 0)}
    assert any(row["attempt"] > 1 for row in rows), "all waited for those before them"


@pytest.mark.parametrize(("noop", "killer"), [("noop", "die"), ("noop", "segfault"), ("anoop", "adie")])
async def test_a_death_is_charged_to_the_task_that_had_begun_and_to_no_other(
    home: House, database_url: str, noop: str, killer: str
) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, **ONE):
        await home.ended(await home.submit(noop, WARM))
        before = await home.submit(noop, 20)
        [culprit] = await home.submit(killer)
        behind = await home.submit(noop, 20)
        rows = await home.ended([*before, *behind, culprit])
    fates = {row["id"]: (row["status"], row["retry_count"], row["crash_count"], row["isolation"]) for row in rows}
    assert fates.pop(culprit)[:3] == ("QUARANTINED", 0, 2)
    assert set(fates.values()) == {("COMPLETED", 0, 0, 0)}


@pytest.mark.parametrize(("noop", "sleep"), [("noop", "sleep"), ("anoop", "asleep")])
async def test_time_limits_count_from_the_beginning_and_not_from_the_queue(
    home: House, database_url: str, noop: str, sleep: str
) -> None:
    with WorkerProcess({"DATABASE_URL": database_url}, **ONE):
        await home.ended(await home.submit(noop, WARM))
        ids = await home.submit(sleep, 25, seconds=0.1, _timeout_seconds=2.0)
        rows = await home.ended(ids)
    assert {(row["status"], row["retry_count"]) for row in rows} == {("COMPLETED", 0)}
