"""What a child's words and a child's death mean for the tasks in it, as outcomes. Decides nothing about charges."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from services.worker.charging import ErrorInfo, Kind, Outcome

if TYPE_CHECKING:
    from services.worker.child import Child
    from services.worker.holding import Job
    from taskflow_queue import protocol as wire

_WORDS: Final = {
    kind.value: kind
    for kind in (
        Kind.RETURNED, Kind.RAISED, Kind.TIMED_OUT, Kind.CANCELLED, Kind.LATER, Kind.REJECTED, Kind.RELEASED,
        Kind.SUSPECT,
    )
}  # fmt: skip


def logs_of(job: Job, more: str = "") -> str:
    """Return what an attempt has logged."""
    return "".join([*job.logs, more]) if job.logs else more


def of_done(job: Job, done: wire.Done) -> Outcome:
    """Translate a child's words; a kind that this version does not know is an error of the task."""
    kind = _WORDS.get(done.kind, Kind.RAISED)
    if kind is Kind.CANCELLED and job.asked != "user":
        kind = Kind.RELEASED
    company = 1
    if kind is Kind.SUSPECT:
        # Smaller each time, whatever the child says: at last the task is alone, and then it is its own failure.
        company = min(done.company, job.task.isolation or done.company)
        kind = Kind.SUSPECT if company > 1 else Kind.RAISED
    error = None
    if done.error_type:
        error = ErrorInfo(type=done.error_type, message=done.message, traceback=done.traceback)
    logs = logs_of(job, done.logs)
    return Outcome(kind, done.result, error, done.fatal, done.later, logs, done.seconds, company)


def of_death(child: Child, *, kernel: bool) -> list[tuple[Job, Outcome]]:
    """Say what became of everything in a dead child; `kernel` says that the kernel killed it for want of memory.

    What the child had not begun yet, by its own note, is blameless.
    """
    jobs, blameless = list(child.jobs.values()), {job.key for job in child.waiting()}
    company = len(jobs) - len(blameless)
    return [
        (
            job,
            Outcome(Kind.RELEASED, logs=logs_of(job))
            if job.key in blameless
            else _after_death(child, company, job, kernel=kernel),
        )
        for job in jobs
    ]


def _after_death(child: Child, company: int, job: Job, *, kernel: bool) -> Outcome:
    """Alone in it: a crash. In company: suspects. Killed by us over a known culprit: neighbours, released."""
    memory = kernel or child.killed_for == "memory"
    if child.killed_for and not memory:
        return Outcome(kind=Kind.RELEASED, logs=logs_of(job))
    status = child.status or 0
    if memory:
        message = "its process ran out of memory"
    elif status < 0:
        message = f"its process was ended by {_signal_name(-status)}"
    else:
        message = f"its process exited with code {status}"
    if company > 1:
        message = f"{message}, with {company} tasks in it"
    kind = Kind.SUSPECT if company > 1 else Kind.OUT_OF_MEMORY if memory else Kind.CRASHED
    error = ErrorInfo(type="OutOfMemory" if memory else "Crashed", message=message)
    return Outcome(kind=kind, error=error, company=company, logs=logs_of(job))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
