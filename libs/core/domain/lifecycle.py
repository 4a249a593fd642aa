"""The state machine: every legal move of a task, by cause.

Statements take their edges from `TABLE`; nothing else in the repository names a pair of states. A target has two
forms, because a *gated* task (it has a concurrency key, or its queue has a cap) never becomes QUEUED by anything
but the gate: where an ungated task goes to QUEUED, a gated one goes to PENDING.
"""

from enum import StrEnum
from typing import NamedTuple


class TaskStatus(StrEnum):
    """Where a task is. The labels are API and never change."""

    BLOCKED = "BLOCKED"
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    QUARANTINED = "QUARANTINED"


class Cause(StrEnum):
    """Why a task moves."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    RETRY = "retry"
    GIVE_UP = "give_up"
    QUARANTINE = "quarantine"
    STOP = "stop"
    RELEASE = "release"
    RESCUE = "rescue"
    RESCUE_LATER = "rescue_later"
    CANCEL = "cancel"
    FORCE_CANCEL = "force_cancel"
    CANCEL_GRACE = "cancel_grace"
    EXPIRE = "expire"
    PROMOTE = "promote"
    DEMOTE = "demote"
    UNBLOCK = "unblock"
    REDRIVE = "redrive"


class Target(NamedTuple):
    """Where a move leads: `free` for an ungated task, `gated` for a gated one."""

    free: TaskStatus
    gated: TaskStatus


def _to(status: TaskStatus) -> Target:
    return Target(status, status)


_S = TaskStatus
_READY = Target(free=_S.QUEUED, gated=_S.PENDING)

WAITING = frozenset({_S.BLOCKED, _S.PENDING, _S.QUEUED})
RUNNING = frozenset({_S.IN_PROGRESS, _S.CANCELLING})
ENDED = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED, _S.QUARANTINED})

TABLE: dict[Cause, dict[TaskStatus, Target]] = {
    Cause.CLAIM: {_S.QUEUED: _to(_S.IN_PROGRESS)},
    Cause.SUCCEED: {_S.IN_PROGRESS: _to(_S.COMPLETED), _S.CANCELLING: _to(_S.COMPLETED)},
    Cause.RETRY: {_S.IN_PROGRESS: _to(_S.PENDING), _S.CANCELLING: _to(_S.CANCELLED)},
    Cause.GIVE_UP: {_S.IN_PROGRESS: _to(_S.FAILED), _S.CANCELLING: _to(_S.CANCELLED)},
    Cause.QUARANTINE: {_S.IN_PROGRESS: _to(_S.QUARANTINED), _S.CANCELLING: _to(_S.CANCELLED)},
    Cause.STOP: {_S.CANCELLING: _to(_S.CANCELLED)},
    Cause.RELEASE: {_S.IN_PROGRESS: _READY, _S.CANCELLING: _to(_S.CANCELLED)},
    Cause.RESCUE: {_S.IN_PROGRESS: _READY, _S.CANCELLING: _to(_S.CANCELLED)},
    Cause.RESCUE_LATER: {_S.IN_PROGRESS: _to(_S.PENDING), _S.CANCELLING: _to(_S.CANCELLED)},
    Cause.CANCEL: {
        **{status: _to(_S.CANCELLED) for status in (_S.BLOCKED, _S.PENDING, _S.QUEUED)},
        _S.IN_PROGRESS: _to(_S.CANCELLING),
    },
    Cause.FORCE_CANCEL: {
        status: _to(_S.CANCELLED) for status in (_S.BLOCKED, _S.PENDING, _S.QUEUED, _S.IN_PROGRESS, _S.CANCELLING)
    },
    Cause.CANCEL_GRACE: {_S.CANCELLING: _to(_S.CANCELLED)},
    Cause.EXPIRE: {status: _to(_S.EXPIRED) for status in (_S.BLOCKED, _S.PENDING, _S.QUEUED)},
    Cause.PROMOTE: {_S.PENDING: _to(_S.QUEUED)},
    Cause.DEMOTE: {_S.QUEUED: _to(_S.PENDING)},
    Cause.UNBLOCK: {_S.BLOCKED: _READY},
    Cause.REDRIVE: dict.fromkeys((_S.FAILED, _S.CANCELLED, _S.EXPIRED, _S.QUARANTINED), _READY),
}


class Edges(NamedTuple):
    """The moves of one cause as three lists of equal length, the form in which statements take them."""

    sources: list[str]
    free: list[str]
    gated: list[str]


def edges(cause: Cause) -> Edges:
    """Return the moves that `cause` allows."""
    moves = sorted(TABLE[cause].items())
    return Edges(
        sources=[source.value for source, _ in moves],
        free=[target.free.value for _, target in moves],
        gated=[target.gated.value for _, target in moves],
    )


def target(cause: Cause, source: TaskStatus, *, gated: bool) -> TaskStatus | None:
    """Return where `cause` takes a task in `source`, or None when that move is not legal."""
    found = TABLE[cause].get(source)
    if found is None:
        return None
    return found.gated if gated else found.free
