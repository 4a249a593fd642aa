"""The middle of the worker: claimed tasks go to children, their ends go to the finisher.

The hot path is `run` and `heard`: each takes whatever came in one turn of the loop, and makes no task and no await
of its own. Everything that a child may do wrong comes out here as an outcome.
"""

from __future__ import annotations

import functools
import signal
from collections import defaultdict
from typing import TYPE_CHECKING

from core import clock, telemetry
from core.domain.ordering import Lane
from core.samples import observe_all, observe_each
from services.worker import outcomes
from services.worker.charging import ErrorInfo, Kind, Outcome, charge
from services.worker.holding import Holding, Job
from services.worker.limits import OVERTIME_SECONDS, Limits, Stage
from services.worker.memory import OomCounter, used_bytes
from taskflow_queue import protocol as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from core.domain.task import Claimed, Ending
    from services.worker.catalogue import Catalogue
    from services.worker.child import Child
    from services.worker.children import Children

log = telemetry.get_logger("worker")
ABANDONED = "abandoned"  # who asked a job to stop, when it is not this worker's any more


class Supervisor:
    """What happens to a task between its claim and its end."""

    def __init__(
        self, holding: Holding, catalogue: Catalogue, put: Callable[[list[Ending]], None], children: Children
    ) -> None:
        """`put` takes endings to be recorded."""
        self.children = children
        self._holding = holding
        self._catalogue = catalogue
        self._put = put
        self._limits = Limits(self._due)
        self._oom = OomCounter()
        self._oom_seen = self._oom.read()
        self._seconds = functools.cache(telemetry.metrics().task_run_seconds.labels)
        self._waits = functools.cache(telemetry.metrics().task_wait_seconds.labels)
        self.on_ready: Callable[[wire.Ready], None] = lambda _: None
        self.on_broken: Callable[[str], None] = lambda _: None
        self.on_room: Callable[[], None] = lambda: None

    # ── the hot path ──

    def run(self, batch: list[Claimed]) -> None:
        """Hand claimed tasks to children."""
        jobs = [self._job(task) for task in batch]
        for lane, measure in self.children.prefetch.items():
            if sizes := [len(job.task.payload) for job in jobs if job.lane is lane]:
                measure.weighed(max(sizes))
        self._holding.add(jobs)
        self.children.place(jobs)
        observe_each(self._waits, ((task.queue, task.waited) for task in batch if task.waited is not None))

    def sent(self, jobs: list[Job]) -> None:
        """Watch the limits of what runs from now on."""
        self._limits.watch(jobs)

    def heard(self, child: Child, messages: list[wire.ToSupervisor]) -> None:
        """Take in what a child says; all ends of one turn are charged and recorded together."""
        ended: list[tuple[Job, Outcome]] = []
        for message in messages:
            match message:
                case wire.Done():
                    if message.kind == Kind.OUT_OF_MEMORY:
                        child.kill("memory")  # which of those in it has used it up is found out as after any such death
                    elif (job := child.jobs.get((message.id, message.attempt))) is not None:
                        ended.append((job, outcomes.of_done(job, message)))
                case wire.Progress() | wire.Logs():
                    self._note(child, message)
                case wire.Ready():
                    self._welcome(child, message)
                case wire.Broken():
                    child.broken = message.message
                    self.on_broken(message.message)
                case wire.Pong() | wire.Born():
                    pass
        if ended:
            self._pace(child, ended)
            self._close(ended)
            self.children.settled(child)

    def _pace(self, child: Child, ended: list[tuple[Job, Outcome]]) -> None:
        """Measure how fast the async tasks of a child get on: by how many end in a while."""
        if asyncs := sum(1 for job, _ in ended if job.lane is Lane.ASYNC):
            measure, seconds = self.children.prefetch[Lane.ASYNC], clock.monotonic() - child.moved
            measure.took(seconds / asyncs, tasks=asyncs, full=child.counts[Lane.ASYNC] >= measure.slots)

    def _job(self, task: Claimed) -> Job:
        terms = self._catalogue.terms(task)
        return Job(task, (task.id.bytes, task.attempt), terms.lane, terms)

    def _close(self, ended: list[tuple[Job, Outcome]]) -> None:
        """Charge and record ends, and use the room that they leave; one that was abandoned leaves only room."""
        now = clock.monotonic()
        endings: list[Ending] = []
        ran: dict[tuple[str, str], list[float]] = defaultdict(list)
        jobs = [job for job, _ in ended]
        self._holding.drop(jobs)
        self._limits.forget(jobs)
        self.children.drop(jobs)
        for job, outcome in ended:
            if job.asked != ABANDONED:
                ending = charge(job.task, job.terms.policy, outcome, rand=clock.rand())
                endings.append(ending)
                seconds = outcome.seconds or now - (job.begun or now)
                ran[job.task.queue, job.task.type].append(seconds)
                if job.lane is Lane.SYNC and outcome.kind is not Kind.RELEASED:
                    self.children.prefetch[Lane.SYNC].took(seconds)
                if ending.failures or ending.crashes:
                    _tell_failure(job, ending, outcome)
        if endings:
            self._holding.close(endings)
            self._put(endings)
        for labels, times in ran.items():
            observe_all(self._seconds(*labels), times)
        self.children.pump()
        self.on_room()

    # ── what children say beside ends ──

    def _welcome(self, child: Child, ready: wire.Ready) -> None:
        child.ready = True
        child.baseline = used_bytes(child.pid)
        self.on_ready(ready)
        self.children.pump()
        self.on_room()

    def _note(self, child: Child, message: wire.Progress | wire.Logs) -> None:
        job = child.jobs.get((message.id, message.attempt))
        if job is None:
            return
        if isinstance(message, wire.Progress):
            job.progress = message.fraction, message.note
        else:
            job.logs.append(message.text)

    # ── deaths ──

    def died(self, child: Child) -> None:
        """Say what a child's death means for what was in it, and have it replaced."""
        self.children.gone(child)
        if not child.ready and child.broken is None:
            late = ": it had not imported them in time" if child.killed_for == "start" else ""
            self.on_broken(f"a child ended with status {child.status} before it was ready{late}")
        ended = outcomes.of_death(child, kernel=self._kernel_killed(child))
        if ended:
            log.warning(
                "a child died with tasks in it",
                pid=child.pid,
                status=child.status,
                killed_for=child.killed_for or None,
                tasks=[str(job.task.id) for job, _ in ended][:10],
                means=sorted({outcome.kind.value for _, outcome in ended}),
            )
            self._close(ended)
        self.children.pump()
        self.on_room()

    def _kernel_killed(self, child: Child) -> bool:
        """Whether the kernel killed for want of memory since the last look; only a SIGKILL can have been that."""
        seen, self._oom_seen = self._oom_seen, self._oom.read()
        return child.status == -signal.SIGKILL and self._oom_seen > seen

    # ── stopping ──

    def cancel(self, jobs: Iterable[Job], *, asked: str) -> None:
        """Ask tasks to stop: "user" makes it their end, "drain" gives them back."""
        for job in jobs:
            if job.asked in {"user", asked}:
                continue
            first, job.asked = not job.asked, asked
            if job.child is None:
                self._close([(job, Outcome(kind=Kind.CANCELLED if asked == "user" else Kind.RELEASED))])
            elif first:
                job.child.cancel([job])
                self._limits.stopping(job)

    def abandon(self, jobs: Iterable[Job]) -> None:
        """Stop tasks that are not ours any more; nothing is recorded."""
        for job in jobs:
            job.asked = ABANDONED
            if job.child is None:
                self._close([(job, Outcome(kind=Kind.RELEASED))])
                continue
            self._holding.drop([job])
            job.child.cancel([job])
            self._limits.stopping(job, at_once=True)

    def abandon_all(self) -> None:
        """Kill everything that runs, at once: this worker was declared dead, and others run it by now."""
        jobs = list(self._holding.jobs.values())
        for job in jobs:
            job.asked = ABANDONED
        self._holding.drop(jobs)
        self.children.drop([job for job in jobs if job.child is None])
        for child in self.children:
            if child.jobs:
                child.kill("fenced")

    def release(self, jobs: Iterable[Job]) -> None:
        """Give tasks back uncharged, whatever their handlers do."""
        self._close([(job, Outcome(kind=Kind.RELEASED, logs=outcomes.logs_of(job))) for job in list(jobs)])

    def interrupt(self, jobs: Iterable[Job]) -> None:
        """Send those that were asked to stop a SIGTERM now: there is no time to be polite."""
        for job in jobs:
            if job.child is not None and job.lane is Lane.SYNC:
                job.child.nudge()

    def _due(self, job: Job, stage: Stage) -> None:
        child = job.child
        if child is None:
            return
        match stage:
            case Stage.LIMIT:
                job.ping = child.ping()
                self._limits.add(job, Stage.OVERTIME, OVERTIME_SECONDS)
            case Stage.OVERTIME:
                self._overrule(job, Kind.TIMED_OUT, f"it ran longer than its time limit of {job.terms.timeout:g} s")
            case Stage.INTERRUPT:
                job.ping = child.ping()
                child.cancel([job])
                if job.lane is Lane.SYNC:
                    child.nudge()
            case Stage.KILL:
                kind = Kind.RELEASED if job.asked == "drain" else Kind.CANCELLED
                self._overrule(job, kind, "it did not stop when it was asked to")

    def _overrule(self, job: Job, kind: Kind, message: str) -> None:
        """End a task without its child, and the child with its neighbours given time unless its loop is stuck."""
        child = job.child
        error = ErrorInfo(type="TimedOut" if kind is Kind.TIMED_OUT else "Cancelled", message=message)
        self._close([(job, Outcome(kind=kind, error=error, logs=outcomes.logs_of(job)))])
        if child is not None:
            self.children.condemn(child, "limit" if kind is Kind.TIMED_OUT else "cancel")
            if not child.answered(job.ping):
                child.kill("blocked")


def _tell_failure(job: Job, ending: Ending, outcome: Outcome) -> None:
    log.info(
        "an attempt failed",
        task_id=str(ending.id),
        attempt=ending.attempt,
        type=job.task.type,
        reason=ending.reason.value,
        then=ending.cause.value,
        error=f"{outcome.error.type}: {outcome.error.message}"[:300] if outcome.error else None,
    )
