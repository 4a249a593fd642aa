"""Events of Kubernetes that a person understands: at most one for each TaskQueue in ten seconds.

What comes faster is put together: two steps up become one from the first number to the last.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from core import telemetry
from core.errors import NotFound, TaskFlowError
from services.operator.cluster import EVENTS, MANAGER, Cluster, Json

if TYPE_CHECKING:
    from core.clock import Clock

EVERY_SECONDS: Final = 10.0
_MOST_PENDING: Final = 5
_MOST_TEXT: Final = 1000  # characters; the API server takes 1024
log = telemetry.get_logger("operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that happened. A step of scaling has `before` and `after`, so that steps can be put together."""

    reason: str
    text: str
    kind: Literal["Normal", "Warning"] = "Normal"
    before: int | None = None
    after: int | None = None

    def message(self) -> str:
        return self.text if self.before is None else f"{self.before}→{self.after}: {self.text}"


@dataclass(slots=True)
class _Desk:
    subject: Json
    said_at: float = float("-inf")
    pending: list[Note] = field(default_factory=list)


class Events:
    """Posts notes about TaskQueues. An event that cannot be posted is logged and forgotten."""

    def __init__(self, cluster: Cluster, clock: Clock, *, instance: str = "") -> None:
        self._cluster, self._clock = cluster, clock
        self._instance = instance or MANAGER
        self._desks: dict[str, _Desk] = {}

    def say(self, taskqueue: Json, note: Note) -> None:
        """Take a note about a TaskQueue; it is posted by the next `flush` that may."""
        about = taskqueue["metadata"]
        desk = self._desks.setdefault(about["uid"], _Desk(subject=reference(taskqueue)))
        desk.pending = joined([*desk.pending, note])[-_MOST_PENDING:]

    async def flush(self) -> int:
        """Post what waits, for each TaskQueue that has had no event for ten seconds; how many were posted."""
        now = self._clock.monotonic()
        posted = 0
        for uid, desk in list(self._desks.items()):
            if now - desk.said_at < EVERY_SECONDS:
                continue
            if not desk.pending:
                del self._desks[uid]
                continue
            notes, desk.pending, desk.said_at = desk.pending, [], now
            try:
                await self._cluster.create(EVENTS, desk.subject["namespace"], self._body(desk.subject, notes))
                posted += 1
            except NotFound:  # the namespace is gone
                del self._desks[uid]
            except TaskFlowError as refused:
                log.warning("an event could not be posted", reason=notes[-1].reason, error=str(refused))
        return posted

    def _body(self, subject: Json, notes: list[Note]) -> Json:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        warning = next((note for note in reversed(notes) if note.kind == "Warning"), None)
        chief = warning or notes[-1]
        others = "; ".join(f"{note.reason} {note.message()}" for note in notes if note is not chief)
        text = chief.message() + (f" (and: {others})" if others else "")
        return {
            "metadata": {"name": f"{subject['name']}.{secrets.token_hex(8)}", "namespace": subject["namespace"]},
            "involvedObject": subject,
            "reason": chief.reason,
            "message": text[:_MOST_TEXT],
            "type": chief.kind,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._instance,
        }


def joined(notes: list[Note]) -> list[Note]:
    """Put steps in the same direction together, and drop a note that says again what the last one said."""
    found: list[Note] = []
    for note in notes:
        steps = [place for place, one in enumerate(found) if one.before is not None]
        last = found[steps[-1]] if steps and note.before is not None else None
        if last and (last.reason, last.after) == (note.reason, note.before):
            found[steps[-1]] = replace(note, before=last.before)
        elif note not in found[-1:]:
            found.append(note)
    return found


def reference(thing: Json) -> Json:
    """Name an object as events and owners do."""
    about = thing["metadata"]
    return {
        "apiVersion": thing.get("apiVersion") or "taskflow.dev/v1alpha1",
        "kind": thing.get("kind") or "TaskQueue",
        "name": about["name"],
        "namespace": about["namespace"],
        "uid": about["uid"],
    }
