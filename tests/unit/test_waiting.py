from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.lifecycle import WAITING, TaskStatus
from core.domain.waiting import Facts, WaitingCode, why

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
READY: dict[str, Any] = {
    "status": TaskStatus.QUEUED, "now": NOW, "type": "a:b", "queue": "text", "scheduled_at": NOW,
    "queue_workers": 2, "capable_workers": 1, "free_slots": 3,
}  # fmt: skip
HELD = {"status": TaskStatus.PENDING}
NOBODY = {"queue_workers": 0, "capable_workers": 0, "free_slots": 0}

CASES: dict[str, tuple[dict[str, Any], WaitingCode, str]] = {
    "nothing in its way": ({}, WaitingCode.STARTING, "about to take it"),
    "busy": ({"free_slots": 0}, WaitingCode.NO_WORKER_FREE, "All slots of the 1 worker"),
    "results held": ({"free_slots": 0, "holding_workers": 1}, WaitingCode.RESULTS_HELD, "taskflow doctor"),
    "results held by one of two": (
        {"free_slots": 0, "capable_workers": 2, "holding_workers": 1}, WaitingCode.NO_WORKER_FREE, "2 workers",
    ),
    "results held, and a slot is free": ({"holding_workers": 1}, WaitingCode.STARTING, ""),
    "busy several": ({"free_slots": 0, "capable_workers": 2}, WaitingCode.NO_WORKER_FREE, "2 workers"),
    "nobody serves the queue": (NOBODY, WaitingCode.NO_WORKER, "'text'"),
    "unknown type": ({"capable_workers": 0, "free_slots": 0}, WaitingCode.NO_CAPABLE_WORKER, "'a:b'"),
    "unknown type, held back by the leader": ({**HELD, "capable_workers": 0}, WaitingCode.NO_CAPABLE_WORKER, "'a:b'"),
    "paused": ({"paused": True}, WaitingCode.QUEUE_PAUSED, "resume"),
    "paused, and nobody there": ({**NOBODY, "paused": True}, WaitingCode.QUEUE_PAUSED, "paused"),
    "delayed": ({**HELD, "scheduled_at": LATER}, WaitingCode.DELAYED, "2030-01-01T00:05:00"),
    "delayed, and paused": ({**HELD, "scheduled_at": LATER, "paused": True}, WaitingCode.DELAYED, "00:05"),
    "retry": ({**HELD, "scheduled_at": LATER, "attempt": 2}, WaitingCode.RETRY_BACKOFF, "Attempt 2"),
    "due, before the leader looked": ({**HELD, "attempt": 1}, WaitingCode.STARTING, ""),
    "expired": ({"expires_at": NOW}, WaitingCode.EXPIRED, "EXPIRED"),
    "not expired": ({"expires_at": LATER}, WaitingCode.STARTING, ""),
    "blocked": ({"status": TaskStatus.BLOCKED}, WaitingCode.DEPENDENCIES, "depends"),
    "queue full": ({**HELD, "max_concurrent": 4, "queue_active": 4}, WaitingCode.CONCURRENCY_LIMIT, "at most 4"),
    "queue not full": ({**HELD, "max_concurrent": 4, "queue_active": 3}, WaitingCode.STARTING, ""),
    "key taken": (
        {**HELD, "concurrency_key": "k", "max_per_key": 1, "key_active": 1}, WaitingCode.CONCURRENCY_LIMIT, "'k'",
    ),
    "key free": ({**HELD, "concurrency_key": "k", "max_per_key": 1}, WaitingCode.STARTING, ""),
    "keys without a cap": ({**HELD, "concurrency_key": "k", "key_active": 9}, WaitingCode.STARTING, ""),
    "through the gate": (
        {"permit": True, "max_concurrent": 1, "queue_active": 1, "free_slots": 0}, WaitingCode.NO_WORKER_FREE, "",
    ),
    "whole worker": ({"solo": True}, WaitingCode.WHOLE_WORKER, "to itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_situation_has_its_code(case: str) -> None:
    facts, code, word = CASES[case]
    waiting = why(Facts(**{**READY, **facts}))
    assert waiting is not None
    assert waiting.code is code
    assert word in waiting.detail


@given(st.sampled_from(TaskStatus), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_who_waits_always_gets_a_sentence_and_nobody_else_does(
    status: TaskStatus,
    workers: int,
    free: int,
    paused: bool,  # noqa: FBT001 - Hypothesis hands it in
) -> None:
    facts = {**READY, "status": status, "queue_workers": workers, "capable_workers": workers, "free_slots": free}
    waiting = why(Facts(**{**facts, "paused": paused}))
    assert (waiting is not None) == (status in WAITING)
    assert waiting is None or waiting.detail.endswith((".", "MODULE"))
