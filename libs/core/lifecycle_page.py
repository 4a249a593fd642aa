"""The page `docs/lifecycle.md`, made from the table of `core.domain.lifecycle`.

`python -m core.lifecycle_page > docs/lifecycle.md` writes it; a contract test sees that it is in step.
"""

import sys
from collections import defaultdict

from core.domain.lifecycle import ENDED, RUNNING, TABLE, WAITING, Cause, TaskStatus

WHY: dict[Cause, str] = {
    Cause.CLAIM: "a worker took it: attempt + 1, a new claim",
    Cause.SUCCEED: "its holder reports a result; while CANCELLING that still counts",
    Cause.RETRY: "its holder reports a failure that may be tried again, or that it asked for another time",
    Cause.GIVE_UP: "its holder reports a failure that is final",
    Cause.QUARANTINE: "its holder reports that it killed its process once too often",
    Cause.STOP: "its holder stopped it, as it was asked to",
    Cause.RELEASE: "its holder gives it back untouched: it leaves, or a neighbour is to blame",
    Cause.RESCUE: "its worker is dead: the leader takes it back",
    Cause.RESCUE_LATER: "the same, after several such deaths: with a pause",
    Cause.CANCEL: "its owner cancels it; when it runs, its holder is asked to stop",
    Cause.FORCE_CANCEL: "its owner cuts it off: what its holder still sends is fenced",
    Cause.CANCEL_GRACE: "it did not stop within the grace: the leader ends it",
    Cause.EXPIRE: "`expires_at` passed before it could start",
    Cause.PROMOTE: "its time has come and it is within the limits: the leader lets it through",
    Cause.DEMOTE: "it must not run now (paused queue, cap, no worker that knows its type): the leader takes it back",
    Cause.UNBLOCK: "the last task that it waited for has ended",
    Cause.REDRIVE: "its owner gives it a new life: counters start anew, attempt and claim go on",
}

HEAD = """\
# The lifecycle of a task

Made from `libs/core/domain/lifecycle.py` by `python -m core.lifecycle_page`; change that file, not this page.

A task that may run at once is born QUEUED, any other PENDING (or BLOCKED, while it waits for other tasks). A *gated*
task has a concurrency key, or its queue has a cap: nothing but the gate makes it QUEUED, so where others go to QUEUED
it goes to PENDING. Every move out of a running status needs the attempt and the claim that the row has at that
moment, or the death of its worker, or the word of its owner.

"""


def _arrows() -> dict[tuple[TaskStatus, TaskStatus], list[str]]:
    """Return what leads from one status to another: the causes, with a star when only for gated tasks."""
    found: dict[tuple[TaskStatus, TaskStatus], list[str]] = defaultdict(list)
    for cause, moves in TABLE.items():
        for source, target in moves.items():
            found[source, target.free].append(cause.value)
            if target.gated is not target.free:
                found[source, target.gated].append(f"{cause.value}*")
    return found


def diagram() -> str:
    """Return the state machine as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> BLOCKED", "    [*] --> PENDING", "    [*] --> QUEUED"]
    order = list(TaskStatus)
    for (source, target), causes in sorted(_arrows().items(), key=lambda arrow: [order.index(end) for end in arrow[0]]):
        lines.append(f"    {source} --> {target}: {', '.join(causes)}")
    lines += [f"    {status} --> [*]" for status in order if status in ENDED]
    return "\n".join([*lines, "```"])


def table() -> str:
    """Return the moves as a table, one row for each cause."""
    lines = ["| cause | moves | why |", "|---|---|---|"]
    for cause, moves in TABLE.items():
        shown = []
        for source, target in sorted(moves.items(), key=lambda move: list(TaskStatus).index(move[0])):
            gated = "" if target.gated is target.free else f" (gated: {target.gated})"
            shown.append(f"{source} → {target.free}{gated}")
        lines.append(f"| `{cause}` | {'<br>'.join(shown)} | {WHY[cause]} |")
    return "\n".join(lines)


def page() -> str:
    """Return the whole page."""
    groups = "\n".join(
        f"- {name}: {', '.join(status for status in TaskStatus if status in group)}"
        for name, group in (("Waiting", WAITING), ("Running", RUNNING), ("Ended", ENDED))
    )
    return f"{HEAD}{groups}\n\n{diagram()}\n\nA star marks what happens to gated tasks only.\n\n{table()}\n"


if __name__ == "__main__":
    sys.stdout.write(page())
