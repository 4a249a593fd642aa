"""From rows to values."""

from collections.abc import Iterable
from itertools import repeat
from typing import Any
from uuid import UUID

from core.domain.lifecycle import TaskStatus
from core.domain.ordering import PriorityType
from core.domain.task import Claimed, Moved, Submitted

Row = Any  # asyncpg's Record: it ships no types


_STATUSES = {status.value: status for status in TaskStatus}
_PRIORITIES = {priority.value: priority for priority in PriorityType}


def born(rows: Iterable[Row]) -> dict[UUID, Submitted]:
    """Return what became of submissions, by their ids: the columns are the fields of Submitted, in that order."""
    return {task: Submitted(task, _STATUSES[status], *rest) for task, status, *rest in rows}


def moved(rows: Iterable[Row]) -> list[Moved]:
    """Return what a statement moved: its columns are the fields of Moved, in that order."""
    return [
        Moved(task, _STATUSES[status], _STATUSES[previous], queue, owner, key, gated, _PRIORITIES[priority], *rest)
        for task, status, previous, queue, owner, key, gated, priority, *rest in rows
    ]


def moved_alike(rows: Iterable[Row]) -> list[Moved]:
    """Return what a statement moved that tells what is alike once, with arrays of ids and of attempts."""
    return [
        Moved._make(each)
        for ids, attempts, status, previous, queue, owner, key, gated, priority, kind, worker in rows
        for each in zip(
            ids, repeat(_STATUSES[status]), repeat(_STATUSES[previous]), repeat(queue), repeat(owner), repeat(key),
            repeat(gated), repeat(_PRIORITIES[priority]), repeat(kind), attempts, repeat(worker), strict=False
        )
    ]  # fmt: skip


def claimed(rows: Iterable[Row], claim: UUID) -> list[Claimed]:
    """Return the tasks held under `claim`: the columns are the fields of Claimed after it, in that order."""
    return [
        Claimed(task, attempt, claim, kind, payload, queue, _PRIORITIES[priority], *rest)
        for task, attempt, kind, payload, queue, priority, *rest in rows
    ]
