"""A small world around the verbs: workers, two who believe to lead, owners, lost answers; and its invariants.

Everything that was acknowledged is remembered and looked for after every step. `heal_and_drain` ends the faults and
sees that every task comes to an end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from core import queue_manager as queue
from core.database import Database
from core.domain.floors import Settled
from core.domain.gates import GateKey
from core.domain.lifecycle import ENDED, RUNNING, TaskStatus
from core.domain.task import Claimed, Ending, Submission, WorkerFace
from tests.machine.calls import CONNECTIONS, Call, Fate, Line
from tests.machine.trail import OWNERS, Pair, Story, hold, judge, replay
from tests.worker_secret import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TYPES = ("a:b", "a:c")
PLAIN, CAPPED = "plain", "capped"
OWNER = 1
MOST_OPEN = 2
KEYS = ("", "k1", "k2")
GATES = [GateKey(queue=name, owner_id=OWNER, key=key) for name in (PLAIN, CAPPED) for key in KEYS]
_TABLES = ["tasks", "task_events", "task_logs", "workers", "queues", "idempotency_keys", "leader", "ready_floors"]
_PICTURE = """
select (select coalesce(json_agg(t), '[]') from (select *, status::text as status from tasks) as t)::text as tasks,
       (select coalesce(json_agg(e order by created_at, id), '[]')
        from (select task_id, id, created_at, event_type::text as event_type, attempt, claim, worker_id, cause
              from task_events) as e)::text as events,
       (select coalesce(json_agg(w), '[]') from (select id, state, beat_seq from workers) as w)::text as workers,
       (select coalesce(json_agg(q), '[]') from queues as q)::text as queues,
       (select coalesce(json_agg(f), '[]') from ready_floors as f)::text as floors,
       (select epoch from leader) as epoch
"""


@dataclass
class Worker:
    """What a worker process knows: its id, what it holds, claims whose answer was lost, and what it once held."""

    id: UUID
    held: dict[UUID, Claimed] = field(default_factory=dict)
    lost: list[tuple[list[UUID], UUID]] = field(default_factory=list)
    ghosts: list[Claimed] = field(default_factory=list)


@dataclass
class Picture:
    """The committed state at one moment."""

    tasks: dict[UUID, dict[str, Any]]
    trails: dict[UUID, list[dict[str, Any]]]
    dead: set[str]
    beats: dict[UUID, int]
    queues: dict[str, dict[str, Any]]
    floors: dict[tuple[str, str, str], int]
    epoch: int


class World:
    """One database, and everyone who works with it. Every method is a step; call `check` after each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.loop = asyncio.new_event_loop()
        self._made = 0
        database = Database(url, name="machine", synchronous_commit="off", idle_in_transaction_session_timeout="0")
        self.observer = self.run(database.own_connection())
        self._connections = [self.run(database.own_connection()) for _ in range(CONNECTIONS)]

    def close(self) -> None:
        for connection in (self.observer, *self._connections):
            self.run(connection.close())
        self.loop.close()

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def name(self) -> UUID:
        """An id in no particular order, but the same in every run: it locks in another order than it was made."""
        self._made += 1
        return UUID(bytes=hashlib.md5(str(self._made).encode(), usedforsecurity=False).digest())

    def reset(self) -> None:
        """Empty the database and everyone's memory."""
        self._made = 0
        self.run(self.observer.execute(";".join(f"delete from {table}" for table in _TABLES)))
        self.line = Line(self._connections, self.observer)
        self.known: dict[UUID, Submission] = {}
        self.acked: set[UUID] = set()
        self.keyed: dict[str, dict[UUID, bytes]] = {}
        self.answers: dict[str, UUID] = {}
        self.ended: dict[Pair, str] = {}
        self.fenced: set[Pair] = set()
        self.moved: Counter[tuple[UUID, str]] = Counter()
        self.unsure: list[list[Ending]] = []
        self.spent: list[list[Ending]] = []
        self.dropped: list[tuple[str, bytes]] = []
        self.epochs: list[int] = [0, 0]
        self.allowed: dict[tuple[str, str], int] = {}
        self.seen: Counter[str] = Counter()
        self.before: Picture | None = None
        self.settled = Settled()
        self.run(self._furnish())
        self.workers = [self.join() for _ in range(3)]
        self.step(Call("take_epoch", lambda tx: queue.take_epoch(tx, UUID(int=0)), Fate.ACK, told=self._leads(0)))
        self.check()

    async def _furnish(self) -> None:
        await queue.ensure_queues(self.observer, [PLAIN, CAPPED])
        await queue.set_limits(self.observer, CAPPED, max_concurrent=2, max_per_key=1)

    def join(self) -> Worker:
        """Have a new worker process appear."""
        worker = Worker(self.name())
        face = WorkerFace(
            id=worker.id,
            secret=SECRET,
            name="w",
            queues=(PLAIN, CAPPED),
            sync_types=TYPES,
            async_types=(),
            sync_slots=4,
            async_slots=0,
        )
        self.run(queue.register_worker(self.observer, face))
        return worker

    def _leads(self, who: int) -> Any:
        def told(epoch: int) -> None:
            self.epochs[who] = epoch

        return told

    def step(self, call: Call) -> Call:
        """Start a call and go on until nothing moves. Too many open calls would stop the world: the oldest ends."""

        async def go() -> None:
            while self.line.full or len(self.line.open) > MOST_OPEN:
                self.line.decide(self.line.open[0], Fate.ACK)
                await self.line.settle()
            self.line.start(call)
            await self.line.settle()

        self.run(go())
        self.seen[call.fate.name] += 1
        return call

    def resolve(self, call: Call, fate: Fate) -> None:
        """Decide on a call that was left open."""

        async def go() -> None:
            self.line.decide(call, fate)
            await self.line.settle()

        self.run(go())

    # -- looking ---------------------------------------------------------------------------------------------------

    async def _look(self) -> Picture:
        row = await self.observer.fetchrow(_PICTURE)
        trails: dict[UUID, list[dict[str, Any]]] = {}
        for event in json.loads(row["events"]):
            trails.setdefault(UUID(event["task_id"]), []).append(event)
        workers = json.loads(row["workers"])
        return Picture(
            tasks={UUID(task["id"]): task for task in json.loads(row["tasks"])},
            trails=trails,
            dead={worker["id"] for worker in workers if worker["state"] == "dead"},
            beats={UUID(worker["id"]): worker["beat_seq"] for worker in workers},
            queues={item["name"]: item for item in json.loads(row["queues"])},
            floors={(f["queue"], f["type"], f["priority"]): f["seq"] for f in json.loads(row["floors"])},
            epoch=row["epoch"] or 0,
        )

    def look(self) -> Picture:
        return self.run(self._look())

    def check(self) -> Picture:
        """Hold every invariant on what is committed now. Raises Violation."""
        picture = self.look()
        stories = {task: replay(str(task), trail) for task, trail in picture.trails.items()}
        for task, row in picture.tasks.items():
            hold("I4 every task has a trail", task, when=task in stories)
            judge(row, stories[task])
            floor = picture.floors.get((row["queue"], row["type"], row["priority"]), 0)
            hold("QUEUED below its floor", row, when=row["status"] != TaskStatus.QUEUED or row["seq"] > floor)
        self._check_acknowledged(picture, stories)
        self._check_deaths(picture, stories)
        self._check_limits(picture)
        verified = self.run(queue.verify_slice(self.observer, queue.FIRST_ID, tasks=1000, events=10_000))
        hold("what taskflow verify proves", verified.found, when=verified.done and not verified.found)
        if self.before is not None:
            _check_past(self.before, picture)
        self.before = picture
        self.settled.step(self.run(queue.look_at_sequence(self.observer)))
        return picture

    def _check_acknowledged(self, picture: Picture, stories: dict[UUID, Story]) -> None:
        there = picture.tasks.keys()
        hold("I1 acknowledged and not there", self.acked - there, when=self.acked <= there)
        hold("no task out of nothing", there - self.known.keys(), when=there <= self.known.keys())
        for key, tasks in self.keyed.items():
            hold("one task for a key", (key, tasks.keys() & there), when=len(tasks.keys() & there) <= 1)
        ended = {pair: attempt for story in stories.values() for pair, attempt in story.ended.items()}
        for pair in self.ended:
            hold("I1 an acknowledged ending is kept", pair, when=pair in ended and ended[pair].cause not in OWNERS)
        for pair in self.fenced:
            story = stories[UUID(pair[0])]
            hold("I3 refused, yet it holds", pair, when=story.current is None or story.current.pair != pair)
            own = pair in ended and ended[pair].cause not in OWNERS
            hold("I3 refused, yet it counts", pair, when=not own)
        for (task, kind), times in self.moved.items():
            hold("an acknowledged move is kept", (task, kind), when=stories[task].kinds[kind] >= times)

    def _check_deaths(self, picture: Picture, stories: dict[UUID, Story]) -> None:
        for story in stories.values():
            for attempt in story.attempts:
                rescued = attempt.cause == "worker_lost"
                hold("I8 rescued from the living", attempt, when=not rescued or attempt.worker in picture.dead)

    def _check_limits(self, picture: Picture) -> None:
        """Hold I7. Where a cap was lowered, those above it may go on, but none may join."""
        under_way = self._claims_under_way()
        active = _active(picture.tasks.values())
        for name, settings in picture.queues.items():
            for key in KEYS:
                cap = settings["max_per_key"] if key else settings["max_concurrent"]
                number = active[name, key]
                if not cap:  # when there is one again, claims under way by then may still come in
                    self.allowed[name, key] = number + under_way
                    continue
                most = max(cap, min(self.allowed.get((name, key), cap), number + under_way))
                hold("I7 limit", (name, key, number, "beyond", most), when=number <= most)
                self.allowed[name, key] = most

    def _claims_under_way(self) -> int:
        return sum(len(call.answer) for call in self.line.calls if call.name == "claim" and call.answer)

    async def count_active(self, tx: Any) -> Counter[tuple[str, str]]:
        """Return what a new cap finds, to be asked in its own transaction: the gate's lock lets nobody in any more.

        Between two looks at everything a gate may have let through what was right under the old cap.
        """
        rows = await tx.fetch("select queue, concurrency_key, status::text as status, permit from tasks")
        active, under_way = _active(rows), self._claims_under_way()
        return Counter({(name, key): active[name, key] + under_way for name in (PLAIN, CAPPED) for key in KEYS})

    def capped(self, found: Counter[tuple[str, str]]) -> None:
        """Let those go on whom a new cap found."""
        for place, number in found.items():
            self.allowed[place] = max(self.allowed.get(place, 0), number)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def pass_time(self) -> None:
        """Have every moment come that tasks wait for. Rows that a call in flight holds are passed over."""
        for column, condition in (
            ("scheduled_at", "status = 'PENDING'"),
            ("expires_at", "expires_at is not null and status in ('BLOCKED', 'PENDING', 'QUEUED')"),
            ("cancel_deadline", "cancel_deadline is not null"),
        ):
            await self.observer.execute(
                f"update tasks set {column} = clock_timestamp() - interval '1 second' where id in"
                f" (select id from tasks where {condition} and {column} > clock_timestamp() for update skip locked)"
            )

    def live(self) -> list[UUID]:
        ends = {status.value for status in ENDED}
        return [task for task, row in self.look().tasks.items() if row["status"] not in ends]


def _active(rows: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Return how many count under the cap of each queue, key "", and of each key in it."""
    active: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["status"] in RUNNING or row["status"] == TaskStatus.QUEUED:
            if row["concurrency_key"]:
                active[row["queue"], row["concurrency_key"]] += 1
            if row["status"] in RUNNING or row["permit"]:
                active[row["queue"], ""] += 1
    return active


def _check_past(before: Picture, now: Picture) -> None:
    for task, old in before.tasks.items():
        hold("I1 a task has gone", task, when=task in now.tasks)
        new = now.tasks[task]
        hold("I3 attempt was lowered", task, when=new["attempt"] >= old["attempt"])
        trail, past = now.trails[task], before.trails[task]
        ids = [event["id"] for event in trail]
        hold("the trail is append-only", task, when=all(event["id"] in ids for event in past))
        if TaskStatus(old["status"]) in ENDED:
            again = [event for event in trail if event["event_type"] == "REDRIVEN" and event not in past]
            hold("I2 an end changed", (task, old["status"], new["status"]), when=new == old or bool(again))
            hold("I2 success is final", task, when=new == old or old["status"] != TaskStatus.COMPLETED)
