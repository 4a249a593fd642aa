"""Connections that break in the middle, and COMMITs whose answer is lost. Rows 20 and 21 of reliability.md §1.

A proxy before PostgreSQL (proxy.py) cuts where it is told to. An API and a worker live behind one each.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from core.pool import Database
from services.api import submitting
from services.dev import fleet as fleets
from tests.signals import until
from tests.system.clients import Face
from tests.system.conftest import FULL
from tests.system.hands import INERT, Hands
from tests.system.history import verify
from tests.system.proxy import Armed, Pair, Proxy, Toxic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.dev.fleet import Member
    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(3600 if FULL else 180),
]

TIMES = 100 if FULL else 20  # of each verb, the answer to its COMMIT is lost
CUTS = 100 if FULL else 20  # places in the bytes of each verb
CLAIM, SUBMIT = "taskflow_claim_", "-- Insert tasks and their CREATED events"
SUCCEED, FINISH = "taskflow_succeed_", "taskflow_finish_"
STATEMENT = {"claim": CLAIM, "complete": SUCCEED, "logs": FINISH, "fail": FINISH, "later": FINISH}

# What no transaction may leave behind: a status without its event, an event without its status, a key without tasks.
HALF_DONE = """
with last as (
    select distinct on (task_id) task_id, event_type::text as event, attempt, claim
    from task_events where event_type::text <> 'FENCED' order by task_id, created_at desc, id desc
)
select 'has no CREATED event of its own' as what, tasks.id::text from tasks
where (select count(*) from task_events where task_id = tasks.id and event_type::text = 'CREATED') <> 1
union all
select 'is told of and not there', task_id::text from last where not exists (select from tasks where id = task_id)
union all
select 'is ' || status || ' and was last ' || coalesce(event, 'silent'), tasks.id::text
from tasks left join last on last.task_id = tasks.id
where not coalesce(case when status::text in ('PENDING', 'QUEUED') then event in ('CREATED', 'RETRIED', 'RELEASED')
                        when status::text = 'IN_PROGRESS'
                        then event = 'STARTED' and last.attempt = tasks.attempt and last.claim = tasks.claim
                        else event = status::text end, false)
union all
select 'is promised by a key and not there', answer.item ->> 'id'
from idempotency_keys cross join lateral json_array_elements(answer) as answer (item)
where not exists (select from tasks where id = (answer.item ->> 'id')::uuid)
"""
EVENTS = "select event_type::text as event from task_events where task_id = any(%s::uuid[])"
UNDER_WAY = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name like 'tf-api%%' and xact_start is not null
"""
# What a worker says when it believes that a task is not its own, or that it does not know one of its own.
LOST = ("outcomes were refused", "tasks are not this worker's", "PostgreSQL says that this worker runs")


class OneCut(Proxy):
    """Cuts one connection after so many bytes; the next one may pass."""

    cuts = 0
    most = 0

    def _forward(self, pair: Pair, data: bytes) -> None:
        try:
            super()._forward(pair, data)
        except EOFError:
            self.reset_after = None
            self.cuts += 1
            raise
        self.most = max(self.most, pair.sent)

    def fresh(self, reset_after: int | None) -> None:
        """Let the next connection be a new one, and break so early."""
        until(self._alone)
        self.most, self.reset_after = 0, reset_after

    def _alone(self) -> bool:
        # Again and again: an API connects by itself, too, every few seconds, to note which keys were used.
        self.cut()
        return not self._pairs


@dataclass
class EachFirst(Armed):
    """Fires at every other match: at each first try, and not at its repetition."""

    seen: int = 0

    def matches(self, text: str) -> bool:
        if not super().matches(text):
            return False
        self.seen += 1
        return self.seen % 2 == 1


@dataclass
class Lossy:
    """A world whose API and worker each speak to PostgreSQL through a proxy."""

    world: World
    api: OneCut
    worker: OneCut
    worker_process: Member

    def arm(self, proxy: Proxy, statement: str, *, repeated: bool) -> Armed:
        """Lose the answers of this statement; when it is `repeated` after that, not those of the repetitions."""
        armed = (EachFirst if repeated else Armed)(statement, Toxic.LOSE_REPLY, 1_000_000)
        proxy._armed.append(armed)
        return armed

    def whole(self) -> None:
        """Nothing is half done, and nobody thought that something was lost."""
        assert self.world.rows(HALF_DONE) == []
        said = [line["event"] for line in self.worker_process.lines() if line["event"].startswith(LOST)]
        assert said == []
        assert self.world.one("select count(*) from task_events where event_type::text in ('FENCED', 'RESCUED')") == 0

    def events(self, ids: list[str]) -> Counter[str]:
        return Counter(row["event"] for row in self.world.rows(EVENTS, ids))

    def said(self, event: str) -> int:
        return sum(line["event"].startswith(event) for line in self.worker_process.lines())


@pytest.fixture(scope="module")
def lossy(module_world: World) -> Iterator[Lossy]:
    with OneCut(module_world.database_url) as api, OneCut(module_world.database_url) as worker:
        module_world.api(DATABASE_URL=api.url)
        module_world.fleet.ready(module_world.fleet.scheduler())
        [process] = module_world.workers(1, DATABASE_URL=worker.url)
        try:
            yield Lossy(module_world, api, worker, process)
        finally:
            module_world.stop(*module_world.fleet.living())


@pytest.fixture
def face(lossy: Lossy) -> Iterator[Face]:
    """A connection to the API, which has seen its key before: most of what follows asks for nothing else."""
    with closing(Face(fleets.url(lossy.world.fleet.living("api")[0]), lossy.world.key)) as made:
        assert made.call("GET", "/v1/queues")[0] == 200
        submitted(made)
        yield made


def submitted(face: Face, key: str | None = None, **said: Any) -> dict[str, Any]:
    """Submit a task that nobody runs; it has to be answered."""
    status, _, task = face.call("POST", "/v1/tasks", {"type": INERT, **said}, key=key)
    assert status == 201, task
    return dict(task)


# ── row 21: the outcome of a COMMIT is unknown ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("verb", "handler", "attempts"),
    [("claim", "work", 1), ("complete", "work", 1), ("logs", "", 1), ("fail", "fails", 2), ("later", "snoozes", 2)],
)
def test_row_21_a_worker_whose_commits_go_unanswered(lossy: Lossy, verb: str, handler: str, attempts: int) -> None:
    world, history, ids = lossy.world, lossy.world.history(), list[str]()
    told = "the answer to a claim was lost" if verb == "claim" else "endings are held"
    before = lossy.said(told)
    armed = lossy.arm(lossy.worker, STATEMENT[verb], repeated=verb != "claim")
    try:
        while armed.fired < TIMES * attempts:  # outcomes that come close together share a commit: then some more
            name, said = (handler, {"history": str(history)}) if handler else ("tests.handlers:loud", {"lines": 2})
            ids += world.submit(name, TIMES - len(ids) if len(ids) < TIMES else 5, **said)
            world.ended(ids, 60)
    finally:
        lossy.worker.disarm()
    verdict = verify(world, ids, history if handler else None).clean()
    again = {"RETRIED": len(ids)} if attempts == 2 else {}
    assert verdict.events == {"CREATED": len(ids), "STARTED": len(ids) * attempts, "COMPLETED": len(ids), **again}
    assert verdict.charged == (len(ids) if verb == "fail" else 0)
    if handler:
        assert verdict.executions == len(ids) * attempts
    else:
        lines = "select string_agg(text, '' order by id) as text from task_logs where task_id = any(%s::uuid[])"
        told_lines = [row["text"] for row in world.rows(f"{lines} group by task_id", ids)]
        assert len(told_lines) == len(ids)
        assert [text for text in told_lines if text.count("line 0") != 1] == []
    lossy.whole()
    assert lossy.said(told) - before >= TIMES // 2  # it says so once for losses that follow on each other
    print(f"row 21, {verb}: {armed.fired} answers lost, {len(ids)} tasks, {dict(verdict.events)}")


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "unkeyed"])
def test_row_21_an_api_whose_commits_go_unanswered(lossy: Lossy, face: Face, keyed: bool) -> None:  # noqa: FBT001
    mark, ids = uuid4().hex, list[str]()
    armed = lossy.arm(lossy.api, SUBMIT, repeated=keyed)
    try:
        while armed.fired < TIMES:
            task = submitted(face, f"{mark}-{len(ids)}" if keyed else None, title=mark)
            ids.append(task["id"])
    finally:
        lossy.api.disarm()
    assert [
        row["id"] for row in lossy.world.rows("select id::text from tasks where title = %s order by id", mark)
    ] == ids
    assert lossy.events(ids) == {"CREATED": len(ids)}
    keys = "select answer -> 0 ->> 'id' as id from idempotency_keys where key like %s || '%%' order by created_at"
    assert [row["id"] for row in lossy.world.rows(keys, mark)] == (ids if keyed else [])
    lossy.whole()
    print(f"row 21, submit {'keyed' if keyed else 'unkeyed'}: {armed.fired} answers lost, {len(ids)} tasks")


# ── row 20: the connection is cut after so many bytes ───────────────────────────────────────────────────────


def places(proxy: OneCut) -> Iterator[int]:
    """Where to cut: from the greeting on, closer where the values are, and at each byte around the last one.

    The driver counts its statements in their names, so the last byte moves on: cut until there is nothing to cut.
    """
    whole, uncut = proxy.most, 0
    evenly = {max(whole * step // CUTS, 1) for step in range(1, CUTS)}
    yield from sorted({*evenly, *range(whole - 400, whole - 10, 40)})
    for place in range(whole - 10, whole + 400):
        before = proxy.cuts
        yield place
        uncut = uncut + 1 if proxy.cuts == before else 0
        if uncut == 3:
            return


def test_row_20_a_keyed_submit_cut_anywhere_is_whole_or_not_at_all(lossy: Lossy, face: Face) -> None:
    mark, answers = uuid4().hex, Counter[int]()
    lossy.api.fresh(None)
    submitted(face, f"{mark}-whole", title=mark)
    before = lossy.api.cuts
    for sent in places(lossy.api):
        lossy.api.fresh(sent)
        status, _, said = face.call("POST", "/v1/tasks", {"type": INERT, "title": mark}, key=f"{mark}-{sent}")
        answers[status] += 1
        assert lossy.world.rows(HALF_DONE) == []
        lossy.api.reset_after = None
        if status == 503:
            submitted(face, f"{mark}-{sent}", title=mark)
        else:
            assert status == 201, said
    count = lossy.world.one("select count(*) from tasks where title = %s", mark)
    keys = lossy.world.one("select count(*) from idempotency_keys where key like %s || '%%'", mark)
    assert count == keys == answers.total() + 1
    assert lossy.api.cuts - before >= CUTS
    lossy.whole()
    print(f"row 20, keyed submit: cut at {answers.total()} of {sent} bytes, answers {dict(answers)}")


def test_row_20_a_cancel_cut_anywhere_is_whole_or_not_at_all(lossy: Lossy, face: Face) -> None:
    def cancelled(task: str) -> int:
        return face.call("POST", f"/v1/tasks/{task}:cancel")[0]

    ids = [submitted(face)["id"]]
    lossy.api.fresh(None)
    until(lambda: cancelled(ids[0]) == 200)
    before, seen = lossy.api.cuts, Counter[str]()
    for sent in places(lossy.api):
        task = submitted(face)["id"]
        ids.append(task)
        lossy.api.fresh(sent)
        status = cancelled(task)
        until(lambda: not lossy.world.one(UNDER_WAY))
        assert lossy.world.rows(HALF_DONE) == []
        seen[f"{status} {lossy.world.statuses([task])[task]}"] += 1
        lossy.api.reset_after = None
        until(lambda one=task: cancelled(one) == 200)  # type: ignore[misc]
    assert lossy.events(ids) == {"CREATED": len(ids), "CANCELLED": len(ids)}
    assert lossy.api.cuts - before >= CUTS
    assert seen["503 QUEUED"] >= CUTS
    assert seen["503 CANCELLED"] > 0  # the cut after the last byte, which is the COMMIT's
    assert seen["200 QUEUED"] == 0
    lossy.whole()
    print(f"row 20, cancel: cut at {seen.total()} of {sent} bytes, after the cut {dict(seen)}")


@pytest.fixture
def leaderless(lossy: Lossy) -> Lossy:
    """Nobody rescues what those hands hold, who never beat. What comes after this does without a leader, too."""
    lossy.world.stop(*lossy.world.fleet.living("scheduler"))
    return lossy


@pytest.mark.parametrize("verb", ["submit", "claim", "finish", "finish_with_logs"])
async def test_row_20_a_verb_cut_anywhere_is_whole_or_not_at_all(
    leaderless: Lossy, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "SETTLE_PAUSES", (0.0, 0.01))
    world, seen = leaderless.world, Counter[str]()
    url = world.database_url
    with OneCut(url) as proxy:
        async with Database(url, name="tf-straight", size=2) as straight:
            do = getattr(Hands(world, proxy, straight), verb)
            assert (await do()).startswith("3 done")
            for sent in places(proxy):
                proxy.fresh(sent)
                seen[await do()] += 1
                assert world.rows(HALF_DONE) == []
        assert proxy.cuts >= CUTS
    assert verb.startswith("finish") or len(seen) > 1  # before the COMMIT and after it
    leaderless.whole()
    print(f"row 20, {verb}: cut at {seen.total()} of {sent} bytes, {dict(seen)}")
