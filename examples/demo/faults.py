"""What CHAOS=1 breaks, and when. All of it in the main thread, between two looks at the progress bar.

The stop of a supervisor is aimed: it must last longer than the lease while a slow task ends in a child of that
supervisor, whose late result is then refused. That is the fence at work, and a run without it would show little.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from core import embedded, redis_client
from core.config import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from services.dev.fleet import Member
    from services.dev.stage import Stage

KILL_EVERY = 10.0
LEASES_STOPPED = 2
AIM_SECONDS = 6.0  # how long to look for a slow task in the right moment before any worker has to do

# Slow tasks that will end while their worker is stopped, and the process of that worker.
DUE_TO_END = text("""
select workers.pid from tasks join workers on workers.id = tasks.worker_id
where tasks.status = 'IN_PROGRESS' and tasks.queue = 'slow' and workers.state = 'alive'
  and clock_timestamp() - tasks.started_at between interval '3 seconds' and interval '7 seconds'
""")
FENCED = text("""
select count(*) from task_events join tasks on tasks.id = task_events.task_id
where event_type = 'FENCED' and owner_id = :owner
""")


class Chaos:
    """Faults by a plan; `step` does what is due."""

    def __init__(self, on: Stage, console: Console, *, seconds: float) -> None:
        self._on = on
        self._console = console
        self._began = time.monotonic()
        self._paused: tuple[Member, float] | None = None
        plan: list[tuple[float, Callable[[], bool]]] = [
            (KILL_EVERY * number + 5, self._kill_worker) for number in range(int(seconds / KILL_EVERY))
        ]
        plan += [(at, self._stop_worker) for at in (26.5, 56.5, 76.5)]
        plan += [(42, self._kill_leader), (62.5, self._flush), (70, self._restart_postgres)]
        self._plan = sorted(plan, key=lambda item: item[0])

    def step(self) -> None:
        """Do what is due; a fault that waits for its moment is tried again with the next step."""
        now = time.monotonic() - self._began
        if self._paused and time.monotonic() > self._paused[1]:
            member, _ = self._paused
            member.resume()
            self._paused = None
            self._say(f"{member.name} ({member.pid}) goes on")
        if self._plan and now > self._plan[0][0] and self._plan[0][1]():
            self._plan.pop(0)
            if not self._plan:
                self._say("no more faults: now all must finish")

    def _say(self, words: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:5.1f} s  {words}", highlight=False)

    def _workers(self) -> Iterator[Member]:
        """Living workers that are not stopped, the oldest first."""
        stopped = self._paused[0] if self._paused else None
        return (one for one in self._on.fleet.living("worker") if one is not stopped)

    def _kill_worker(self) -> bool:
        victim = next(self._workers(), None)
        if victim is not None:
            self._on.fleet.kill(victim)
            new = self._on.fleet.replace(victim)
            self._say(f"kill -9 {victim.name} ({victim.pid}); {new.name} ({new.pid}) takes its place")
        return True

    def _stop_worker(self) -> bool:
        if self._paused:
            return False
        late = time.monotonic() - self._began > self._plan[0][0] + AIM_SECONDS
        try:
            if self._ask(FENCED, owner=self._on.owner).scalar():  # done already
                return True
            pids = set(self._ask(DUE_TO_END).scalars())
        except SQLAlchemyError:
            return late
        aimed = next((one for one in self._workers() if one.pid in pids), None)
        member = aimed or (next(self._workers(), None) if late else None)
        if member is None:
            return late
        seconds = LEASES_STOPPED * settings.lease_seconds
        member.pause()
        self._paused = member, time.monotonic() + seconds
        self._say(f"stop {member.name} ({member.pid}) for {seconds:g} s; its children go on")
        return True

    def _kill_leader(self) -> bool:
        leader = self._on.fleet.leader()
        if leader is None:
            return time.monotonic() - self._began > self._plan[0][0] + AIM_SECONDS
        self._on.fleet.kill(leader)
        new = self._on.fleet.replace(leader)
        self._say(f"kill -9 the leading {leader.name} ({leader.pid}); {new.name} ({new.pid}) stands by")
        return True

    def _flush(self) -> bool:
        servers = self._on.servers
        if not (servers.redis_high_pid and servers.redis_low_pid):
            self._say("Redis is off, or yours: not flushed")
            return True
        for priority in ("high", "low"):
            redis_client.get_redis_client(priority).flushall()
        self._say("FLUSHALL on both Redis")
        return True

    def _restart_postgres(self) -> bool:
        if not self._on.servers.postgres_pid:
            self._say("PostgreSQL is yours: not restarted")
            return True
        began = time.monotonic()
        self._on.servers = embedded.restart_postgres(self._on.servers, "immediate")
        self._say(f"PostgreSQL crashed and was back after {time.monotonic() - began:.1f} s")
        return True

    def _ask(self, question: Any, **values: object) -> Any:
        from core import database

        engine: Any = database.engine
        with engine.connect() as connection:
            return connection.execute(question, values).freeze()()
