"""The order of starting: strict priority, then `seq`; and who may be handed a reference.

A reference goes only into a list that every reader of it can run, so a list belongs to one queue, one priority and one
set of task types, named by its digest.
"""

import hashlib
from collections.abc import Iterable
from enum import StrEnum


class PriorityType(StrEnum):
    """How urgent a task is; HIGH starts before NORMAL before LOW, whatever their age."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


LISTS = "tf:r:"
"""What the key of every list of references begins with."""
URGENCY: tuple[PriorityType, ...] = (PriorityType.HIGH, PriorityType.NORMAL, PriorityType.LOW)


class Lane(StrEnum):
    """A worker reads references for two kinds of slots apart: one sync task a child, many async ones."""

    SYNC = "sync"
    ASYNC = "async"


def digest(types: Iterable[str]) -> str:
    """Return the short name of a set of task types: 12 hexadecimal digits of SHA-256 over the sorted names."""
    joined = "\n".join(sorted(set(types)))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def list_key(queue: str, priority: PriorityType, types_digest: str) -> str:
    """Return the Redis key of the list of a queue, a priority and a set of types."""
    return f"{LISTS}{priority.value}:{types_digest}:{queue}"


def priority_of(key: str) -> PriorityType:
    """Return whose list `key` is."""
    return PriorityType(key.removeprefix(LISTS).partition(":")[0])
