"""The history checker: what handlers wrote down, against what PostgreSQL says happened (reliability.md §3)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ENDINGS = {"COMPLETED", "FAILED", "RETRIED", "RELEASED", "RESCUED", "CANCELLED", "QUARANTINED"}

TASKS = """
select id::text, status::text, result, attempt, retry_count, crash_count from tasks where id = any(%s::uuid[])
"""
EVENTS = """
select task_id::text as task, event_type::text as event, attempt, claim::text, worker_id::text as worker, cause,
       created_at
from task_events where task_id = any(%s::uuid[]) order by created_at, id
"""


class Rows(Protocol):
    """Who can ask PostgreSQL: a world of processes, or a release on a cluster."""

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]: ...


@dataclass
class Verdict:
    """What was found; `problems` is to be empty, and the counts are to be what the test is about."""

    problems: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    charged: int = 0

    def clean(self) -> Verdict:
        assert self.problems[:10] == []
        return self


def read(history: Path) -> list[dict[str, Any]]:
    """The lines of a history; none when no handler ran."""
    if not history.exists():
        return []
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]


def verify(world: Rows, ids: Iterable[str], history: Path | None = None) -> Verdict:
    """Check I1 to I4 for these tasks, all of which are meant to have COMPLETED."""
    ids = list(ids)
    verdict = Verdict()
    rows = {row["id"]: row for row in world.rows(TASKS, ids)}
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in world.rows(EVENTS, ids):
        events[event["task"]].append(event)
        verdict.events[event["event"]] += 1
        if event["event"] in ENDINGS:
            verdict.causes[event["cause"]] += 1
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read(history) if history else []:
        lines[line["task"]].append(line)
    for task in ids:
        if task not in rows:
            verdict.problems.append(f"{task}: acknowledged, and not in the table")
            continue
        verdict.statuses[rows[task]["status"]] += 1
        verdict.charged += rows[task]["retry_count"]
        verdict.problems += [f"{task}: {what}" for what in _wrong(rows[task], events[task], lines[task], history)]
    verdict.executions = sum(line["word"] == "start" for found in lines.values() for line in found)
    return verdict


def _wrong(
    row: dict[str, Any], events: list[dict[str, Any]], lines: list[dict[str, Any]], history: Path | None
) -> Iterable[str]:
    """What contradicts the promise in one task's life."""
    if row["status"] != "COMPLETED":
        yield f"ended {row['status']} and not COMPLETED"
    started = [(event["attempt"], event["claim"]) for event in events if event["event"] == "STARTED"]
    ended = [(event["attempt"], event["claim"]) for event in events if event["event"] in ENDINGS]
    if len(set(ended)) != len(ended):
        yield "an attempt has two endings"
    if set(ended) != set(started):
        yield f"starts {started} and endings {ended} do not fit together"
    if [attempt for attempt, _ in started] != list(range(1, len(started) + 1)):
        yield f"attempts are not counted one by one: {started}"
    if any(not event["cause"] for event in events if event["event"] in ENDINGS):
        yield "an ending without a cause"
    completed = [event["attempt"] for event in events if event["event"] == "COMPLETED"]
    if len(completed) != 1:
        yield f"{len(completed)} attempts are recorded as COMPLETED"
    if history is not None:
        yield from _contradicted(row, lines, attempts={attempt for attempt, _ in started}, completed=completed)


def _contradicted(
    row: dict[str, Any], lines: list[dict[str, Any]], *, attempts: set[int], completed: list[int]
) -> Iterable[str]:
    """What the handlers themselves wrote down and the database does not know."""
    if stray := {line["attempt"] for line in lines} - attempts:
        yield f"attempts {stray} ran without a STARTED event"
    values = {line["value"] for line in lines if line["word"] == "end" and line["attempt"] in completed}
    if row["result"] not in values:
        yield f"the result {row['result']} is not what the recorded attempt returned: {values}"
    if len(starts := [line["attempt"] for line in lines if line["word"] == "start"]) != len(set(starts)):
        yield f"one attempt was executed twice: {starts}"
