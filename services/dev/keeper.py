"""Keeps the processes of `taskflow dev` alive: one that dies is started again, a worker whose files changed anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from core.clock import monotonic
from services.dev import modules as sources
from services.dev.tail import as_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from services.dev.fleet import Fleet, Member

FIRST_WAIT: Final = 1.0
MOST_WAIT: Final = 30.0
SETTLED_SECONDS: Final = 60.0  # one that lived as long is no longer blamed for what came before
LOOK_SECONDS: Final = 1.0
_WRONG_SETTING: Final = 2


@dataclass(slots=True)
class Kept:
    """A process that shall always be there. `wait` is the seconds before its next start, which is at `start_at`."""

    member: Member
    since: float
    wait: float = 0.0
    start_at: float | None = None


@dataclass(slots=True)
class Keeper:
    """Looks after the members of a fleet. `modules` is asked anew whenever a file changed."""

    fleet: Fleet
    folder: Path
    modules: Callable[[], list[str]]
    say: Callable[[str], None]
    reload: bool = True
    kept: list[Kept] = field(default_factory=list)
    _stamps: dict[Path, int] = field(default_factory=dict)
    _looked: float = 0.0

    def keep(self, *members: Member) -> None:
        """Look after these from now on."""
        self.kept += [Kept(member, monotonic()) for member in members]
        self._stamps = sources.stamps(self.modules(), self.folder)

    def look(self) -> None:
        """Do what is to be done now. Call it several times a second."""
        now = monotonic()
        for one in self.kept:
            self._look_at(one, now)
        if self.reload and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._reload()

    def _look_at(self, one: Kept, now: float) -> None:
        if one.start_at is not None:
            if now >= one.start_at:
                self._start(one)
            return
        if one.member.alive():
            return
        code = one.member.process.returncode
        one.wait = min(MOST_WAIT, one.wait * 2) if one.wait and now - one.since < SETTLED_SECONDS else FIRST_WAIT
        words = [said for line in one.member.last_words().splitlines() if (said := as_text(line))]
        self.say("\n  ".join([f"{one.member.name} ended with {code}", *words]))
        if code == _WRONG_SETTING and one.member.role == "worker":
            one.wait = MOST_WAIT  # it cannot be run as it is: a changed file starts it sooner
        self.say(f"{one.member.name} is started again in {one.wait:g} s")
        one.start_at = now + one.wait

    def _start(self, one: Kept) -> None:
        before = one.member
        environment = dict(before.env)
        if before.role == "worker":
            environment["TASKFLOW_WORKER_MODULES"] = ",".join(self.modules())
        one.member = self.fleet.start(before.role, name=before.name, **environment)
        one.since, one.start_at = monotonic(), None
        self.fleet.members.remove(before)

    def _reload(self) -> None:
        found = sources.stamps(self.modules(), self.folder)
        if found == self._stamps:
            return
        changed = sorted(
            file.relative_to(self.folder).as_posix()
            for file in found.keys() | self._stamps.keys()
            if found.get(file) != self._stamps.get(file)
        )
        self._stamps = found
        for one in self.kept:
            if one.member.role == "worker":
                self.say(f"{', '.join(changed[:3])} changed: the worker starts anew")
                self.fleet.stop(one.member)
                one.wait = 0.0
                self._start(one)
