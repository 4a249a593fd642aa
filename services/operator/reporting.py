"""Writes a TaskQueue's status, and turns conditions that became true into events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.operator import apply, conditions, looking, report
from services.operator.cluster import TASKQUEUES
from services.operator.events import Note
from services.operator.mirror import key_of

if TYPE_CHECKING:
    from services.operator.answer import TaskQueueStatus
    from services.operator.cluster import Json
    from services.operator.desk import Desk, Seen

_TOLD: Final = frozenset({"TemplateInvalid", "Conflict", "WorkersFailing", "UnknownTypes"})
"""Conditions that somebody has to do something about."""


async def write(desk: Desk, seen: Seen, taskqueue: Json, old: TaskQueueStatus, new: TaskQueueStatus) -> bool:
    """Write `new` when it is worth it; True when it was written."""
    now = desk.clock.monotonic()
    if not report.worth_writing(old, new, now - seen.status_at):
        return False
    plain = new.model_dump(mode="json", by_alias=True, exclude_none=True)
    written = await apply.status(desk.cluster, *key_of(taskqueue), plain)
    if written is None:
        return False
    seen.status_at = now
    desk.mirror.put(TASKQUEUES, written)
    before = {one.type: one.status for one in old.conditions}
    for one in new.conditions:
        if one.type in _TOLD and one.status == "True" and before.get(one.type) != "True":
            desk.events.say(taskqueue, Note(reason=one.type, text=one.message or one.reason, kind="Warning"))
    return True


async def write_failure(desk: Desk, seen: Seen, taskqueue: Json, error: BaseException) -> None:
    """Say in the condition Ready that the operator failed on this TaskQueue; nothing else is known of it now."""
    old = looking.status_of(taskqueue)
    message = f"The operator could not work on this TaskQueue and tries again: {str(error) or type(error).__name__}"
    fact = conditions.Fact(holds=False, reason="OperatorFailed", message=message)
    generation = taskqueue["metadata"]["generation"]
    said = conditions.merged(old.conditions, {"Ready": fact}, generation=generation, at=desk.clock.now())
    await write(desk, seen, taskqueue, old, old.model_copy(update={"conditions": said}))
