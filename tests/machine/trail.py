"""The small model: what the audit trail of one task says, judged by the table of legal moves.

Pure. A trail is replayed event by event; each must be a move that `TABLE` allows from where the task is by then, and
each that leaves a running status must carry the very (attempt, claim) that holds the task at that point.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from core.domain.lifecycle import RUNNING, TABLE, WAITING, Cause, TaskStatus, target

Event = dict[str, Any]
Pair = tuple[str, int, str]  # task, attempt, claim

HOLDER = {Cause.STOP, Cause.RETRY, Cause.GIVE_UP, Cause.QUARANTINE, Cause.RELEASE}
SILENT = (Cause.PROMOTE, Cause.DEMOTE)  # the leader's moves among waiting statuses leave no event
RECORDED: dict[str, set[Cause]] = {
    "STARTED": {Cause.CLAIM},
    "COMPLETED": {Cause.SUCCEED},
    "FAILED": {Cause.GIVE_UP},
    "RETRIED": {Cause.RETRY},
    "RELEASED": {Cause.RELEASE},
    "RESCUED": {Cause.RESCUE, Cause.RESCUE_LATER},
    "QUARANTINED": {Cause.QUARANTINE},
    "CANCEL_REQUESTED": {Cause.CANCEL},
    "EXPIRED": {Cause.EXPIRE},
    "REDRIVEN": {Cause.REDRIVE},
}
CANCELLED_BY: dict[str, set[Cause]] = {
    "cancel": {Cause.CANCEL},
    "force_cancel": {Cause.FORCE_CANCEL},
    "cancel_grace": {Cause.CANCEL_GRACE},
    "worker_lost": {Cause.RESCUE, Cause.RESCUE_LATER},
}
# Where an event leads; any other is named for its end.
ENDS: dict[str, frozenset[TaskStatus]] = {
    "STARTED": frozenset({TaskStatus.IN_PROGRESS}),
    "CANCEL_REQUESTED": frozenset({TaskStatus.CANCELLING}),
    **dict.fromkeys(("RETRIED", "RELEASED", "RESCUED", "REDRIVEN"), WAITING),
}
OWNERS = {"cancel", "force_cancel", "cancel_grace", "worker_lost"}  # who else than its holder ends an attempt
CHARGED = {"error", "timeout"}


class Violation(AssertionError):
    """An invariant of reliability.md §0 does not hold."""


def hold(invariant: str, what: object, *, when: bool) -> None:
    """Raise when an invariant does not hold."""
    if not when:
        raise Violation(f"{invariant}: {what}")


@dataclass
class Attempt:
    """One execution: from its STARTED event to its ending."""

    pair: Pair
    worker: str
    ended_as: str | None = None
    cause: str | None = None


@dataclass
class Story:
    """What a trail amounts to. `possible` has more than one status when silent moves leave it open."""

    task: str
    possible: set[TaskStatus]
    attempts: list[Attempt] = field(default_factory=list)
    current: Attempt | None = None
    charged: Counter[str] = field(default_factory=Counter)  # since the last redrive
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def ended(self) -> dict[Pair, Attempt]:
        """The attempts that are over, by their token."""
        return {attempt.pair: attempt for attempt in self.attempts if attempt.ended_as}


def _silently(possible: set[TaskStatus]) -> set[TaskStatus]:
    grown = set(possible)
    for cause in SILENT:
        grown |= {end for status in possible if (end := target(cause, status, gated=False))}
    return grown


def _causes(event: Event) -> set[Cause]:
    if event["event_type"] == "CANCELLED":
        return CANCELLED_BY.get(event["cause"], HOLDER)
    return RECORDED[event["event_type"]]


def _move(story: Story, event: Event) -> None:
    causes, kind = _causes(event), event["event_type"]
    ends = {
        end
        for cause in causes
        for status in story.possible
        for gated in (False, True)
        if (end := target(cause, status, gated=gated))
        if end in (ENDS.get(kind) or {TaskStatus(kind)})
    }
    hold("legal moves", (kind, event["cause"], "from", story.possible, "of", story.task), when=bool(ends))
    story.possible = _silently(ends)


def _fence(story: Story, event: Event, *, was_running: bool) -> None:
    """Hold I3 and I4: who leaves a running status is who held it, and says why."""
    kind = event["event_type"]
    pair = (story.task, event["attempt"], event["claim"])
    if kind == "STARTED":
        hold("I3 one holder", pair, when=story.current is None)
        number = story.attempts[-1].pair[1] + 1 if story.attempts else 1
        hold("I3 attempts count up", pair, when=event["attempt"] == number)
        hold("I3 a claim is used once", pair, when=event["claim"] not in {a.pair[2] for a in story.attempts})
        story.current = Attempt(pair, event["worker_id"])
        story.attempts.append(story.current)
    elif was_running:
        current = story.current
        hold("I3 fence", (kind, pair, "held by", current), when=current is not None and pair == current.pair)
        if kind != "CANCEL_REQUESTED" and current is not None:
            hold("I4 every ending has a cause", pair, when=event["cause"] is not None)
            current.ended_as, current.cause, story.current = kind, event["cause"], None
    else:
        hold("I3 who waits is held by nobody", (kind, pair), when=event["claim"] is None)


def replay(task: str, events: list[Event]) -> Story:
    """Follow a trail. Raises Violation at the first event that cannot be."""
    hold("I1 a trail begins with CREATED", task, when=bool(events) and events[0]["event_type"] == "CREATED")
    story = Story(task, _silently({TaskStatus.PENDING}))
    story.kinds["CREATED"] += 1
    for event in events[1:]:
        kind = event["event_type"]
        story.kinds[kind] += 1
        if kind == "FENCED":
            pair = (task, event["attempt"], event["claim"])
            hold("I3 a fenced attempt holds nothing", pair, when=story.current is None or story.current.pair != pair)
            continue
        was_running = bool(story.possible & RUNNING)
        if kind == "REPRIORITIZED":
            hold("legal moves", (kind, story.possible), when=bool(story.possible & WAITING))
            continue
        _move(story, event)
        _fence(story, event, was_running=was_running)
        _count(story, event)
    return story


def _count(story: Story, event: Event) -> None:
    if event["event_type"] == "REDRIVEN":
        story.charged.clear()
    elif event["claim"] is not None and event["event_type"] not in {"STARTED", "CANCEL_REQUESTED"}:
        story.charged[event["cause"]] += 1


def judge(row: dict[str, Any], story: Story) -> None:
    """Hold the row against its trail: status, fence, result, and what was charged."""
    status, current = TaskStatus(row["status"]), story.current
    hold("trail and row agree", (row["id"], status, story.possible), when=status in story.possible)
    started = story.attempts[-1].pair[1] if story.attempts else 0
    hold("I4 executions are attempts", (row["id"], row["attempt"], started), when=row["attempt"] == started)
    token = (row["claim"], row["worker_id"]) if status in RUNNING else (row["claim"], None)
    expected = (current.pair[2], current.worker) if current else (None, None)
    hold("I3 the row is its holder's", (row["id"], token, expected), when=token == expected)
    done = [attempt for attempt in story.attempts if attempt.ended_as == "COMPLETED"]
    hold("I2 one result", (row["id"], done), when=len(done) <= 1)
    result = done[0].pair[2] if done and status is TaskStatus.COMPLETED else None
    hold("I2 the result is that attempt's", (row["id"], row["result"], result), when=row["result"] == result)
    failures = sum(story.charged[cause] for cause in CHARGED)
    hold("I4 failures charged", (row["id"], row["retry_count"], failures), when=row["retry_count"] == failures)
    deaths = story.charged["crash"] + story.charged["worker_lost"]
    counted = row["crash_count"] + row["worker_deaths"]
    hold("I4 deaths counted", (row["id"], counted, deaths), when=counted == deaths)
    waiting = status in WAITING
    hold("a waiting row is nobody's", row["id"], when=not waiting or row["worker_id"] is None)


assert set(TABLE) == {cause for causes in (*RECORDED.values(), *CANCELLED_BY.values(), HOLDER) for cause in causes} | {
    *SILENT,
    Cause.UNBLOCK,
}
