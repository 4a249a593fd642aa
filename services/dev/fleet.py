"""A fleet: the API, schedulers and workers as processes of this machine, started, watched, hurt and stopped.

Every process of a fleet carries the fleet's mark, so that what is left of one is found whoever was its parent.
A guardian (guardian.py) ends them all when the fleet's owner is killed. Does not start stores.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from core.clock import monotonic, pause
from core.errors import TaskFlowError
from services.dev.guardian import MARK, Guardian, argument, marked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import psutil

Role = Literal["api", "scheduler", "worker"]

READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_REAP_SECONDS: Final = 10.0
_STEP: Final = 0.02
_LAST_WORDS: Final = 5
# Who may have a variable; every other one is for all. Nobody of a fleet makes an administrator.
_ONLY_FOR: Final[dict[str, Role | None]] = {
    "SECRET_KEY": "api",
    "TASKFLOW_ADMIN_PASSWORD": None,
    "TASKFLOW_ADMIN_API_KEY": None,
}
_TERM_ENDS: Final = {"deposed, standing by", "not leading, standing by", "stopped"}


class FleetError(TaskFlowError):
    """A process did not do what it was started for."""

    code = "fleet"


class Term(NamedTuple):
    """One time of leading; `now` when nothing was said of its end."""

    epoch: int
    now: bool


@dataclass(slots=True, eq=False)
class Member:
    """One process of a fleet; a replacement is another member. Lines it logs are JSON objects."""

    role: Role
    name: str
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: from now on it does nothing, and does not know it."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def reap(self) -> None:
        """Wait until it is gone, which it was told to be.

        Not for ever: a Ctrl-C within Popen.poll leaves a lock behind, and then nobody can know.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_REAP_SECONDS)

    def lines(self) -> Iterator[dict[str, Any]]:
        """What it has logged; lines that are not JSON come as {"event": line}."""
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                said = line
            yield said if isinstance(said, dict) else {"event": line}

    def said(self, event: str) -> dict[str, Any] | None:
        """The last line with this event, if there is one."""
        return next((line for line in reversed(list(self.lines())) if line.get("event") == event), None)

    def terms(self) -> list[Term]:
        """The times of leading that a scheduler tells of."""
        found: list[Term] = []
        for line in self.lines():
            if line.get("event") == "leading":
                found.append(Term(line["epoch"], now=True))
            elif found and line.get("event") in _TERM_ENDS:
                found[-1] = Term(found[-1].epoch, now=False)
        return found

    def last_words(self) -> str:
        """The end of its log, for whoever wonders why it died."""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(text[-_LAST_WORDS:]) or "it said nothing"


class Fleet:
    """The processes of one TaskFlow. A context manager: whatever happens in the block, none of them outlives it.

    `env` is what every process started from now on gets besides PATH and the like of our own. `temporary` is
    a directory with embedded servers that the guardian stops and removes, too, when we are killed.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], *, temporary: Path | None = None) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.members: list[Member] = []
        self.env = dict(env)
        self._count = 0
        self._guardian = Guardian(self.mark, temporary)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._guardian.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop(*self.members)
        finally:  # a second Ctrl-C cuts the wait short, not the end
            for process in self.leftovers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            for member in self.members:
                member.reap()
            self._guardian.dismiss()

    def start(self, role: Role, *, name: str = "", **env: str) -> Member:
        """Start a process of `role`; `ready` waits for it. Its output goes to a log file in the fleet's folder."""
        self._count += 1
        name = name or f"{role}-{self._count}"
        values = {**_plain_environment(), **self.env, **env, MARK: self.mark}
        values = {one: value for one, value in values.items() if _ONLY_FOR.get(one, role) == role}
        # Its children get a clean environment; the mark must be in it, or nobody could tell whose they are.
        values["TASKFLOW_WORKER_PASS_ENV"] = ",".join(filter(None, [values.get("TASKFLOW_WORKER_PASS_ENV"), MARK]))
        log = self.folder / f"{self._count:03}-{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-I", "-u", "-m", f"services.{role}.main", argument(self.mark)],
                env=values,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # a Ctrl-C in our terminal is ours; we stop them in order
            )
        member = Member(role, name, dict(env), log, process)
        self.members.append(member)
        return member

    def api(self, *, port: int = 0, **env: str) -> Member:
        """Start an API; its address is `url(member)`."""
        return self.start("api", **{"TASKFLOW_API_PORT": str(port or free_port()), **env})

    def scheduler(self, **env: str) -> Member:
        """Start a scheduler."""
        return self.start("scheduler", **env)

    def worker(self, *modules: str, **env: str) -> Member:
        """Start a worker that serves the tasks of `modules`."""
        return self.start("worker", **({"TASKFLOW_WORKER_MODULES": ",".join(modules)} if modules else {}), **env)

    def ready(
        self, *members: Member, within: float = READY_SECONDS, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until these, or all, are ready; each step calls `meanwhile`, which may raise to end it.

        Raises FleetError with the last words of one that died.
        """
        for member in members or tuple(self.living()):

            def answered(one: Member = member) -> bool:
                meanwhile()
                return not one.alive() or one.said("ready") is not None

            in_time = wait(answered, within)
            if not member.alive():
                raise FleetError(f"{member.name} ended with {member.process.returncode}: {member.last_words()}")
            if not in_time:
                raise FleetError(f"{member.name} was not ready within {within:.0f} s: {member.last_words()}")

    def living(self, role: Role | None = None) -> list[Member]:
        """Members that have not ended."""
        return [member for member in self.members if member.alive() and role in (None, member.role)]

    def leader(self) -> Member | None:
        """The scheduler that leads, as far as the schedulers say; None between two of them."""
        terms = [(term, one) for one in self.members if one.role == "scheduler" for term in one.terms()]
        term, last = max(terms, key=lambda found: found[0].epoch, default=(None, None))
        return last if term and last and term.now and last.alive() else None

    def kill(self, member: Member) -> None:
        """Kill -9, and wait until it is gone."""
        member.signal(signal.SIGKILL)
        member.reap()

    def replace(self, member: Member) -> Member:
        """Start another process with the same role and settings."""
        return self.start(member.role, **member.env)

    def stop(self, *members: Member, within: float = _STOP_SECONDS) -> list[int | None]:
        """SIGTERM to all at once, workers included; who is not gone by then is killed. Their exit codes."""
        for member in members:
            member.resume()  # a stopped process cannot hear
            member.signal(signal.SIGTERM)
        end = monotonic() + within
        for member in members:
            try:
                member.process.wait(max(end - monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                self.kill(member)
        return [member.process.returncode for member in members]

    def leftovers(self) -> list[psutil.Process]:
        """Every living process with the fleet's mark: members and what they have started."""
        return marked(self.mark)


def url(member: Member) -> str:
    """The address of an API that was started by a fleet."""
    return f"http://127.0.0.1:{member.env['TASKFLOW_API_PORT']}"


def free_port() -> int:
    """A port of the loopback address that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(done: Callable[[], bool], within: float) -> bool:
    """Ask again and again for at most that long; the last answer."""
    end = monotonic() + within
    while not done():
        if monotonic() > end:
            return False
        pause(_STEP)
    return True


def _plain_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ}  # noqa: TID251 - it starts processes
