"""`python -m examples.demo`: exit 0 when every result came back right, 1 when not, 2 for a wrong setting."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from core.errors import TaskFlowError
from examples.demo import figures
from examples.demo.faults import Chaos
from examples.demo.work import Work, explain, sources
from services.dev.stage import stage
from taskflow_queue import Client

if TYPE_CHECKING:
    from types import FrameType

    from services.dev.stage import Stage

CHAOS_SECONDS = 90.0
DEADLINE = {False: 240.0, True: 220.0}
PATIENCE = 120.0
MODULES = ("examples.wordcount", "examples.demo.tasks")


def main() -> int:
    chaos = os.environ.get("CHAOS", "").lower() not in {"", "0", "off", "no"}
    redis = os.environ.get("REDIS", "").lower() not in {"off", "0", "no"}
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    console = Console()
    try:
        with stage(MODULES, redis=redis, heartbeat=1.0 if chaos else None) as on:
            introduce(console, on)
            return play(console, on, chaos=chaos)
    except TaskFlowError as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def introduce(console: Console, on: Stage) -> None:
    """Say what runs, with pids for whoever wants to look or to kill."""
    servers = on.servers
    redis = f"redis {servers.redis_high_pid} {servers.redis_low_pid}" if servers.redis_high else "no redis"
    console.print(
        f"postgres {servers.postgres_pid or 'yours'} · {redis} · api {on.api.pid} at {on.url}", highlight=False
    )
    console.print(
        f"schedulers {' '.join(str(one.pid) for one in on.schedulers)} · "
        f"workers {' '.join(str(one.pid) for one in on.workers)} · demo {os.getpid()}",
        highlight=False,
    )


def play(console: Console, on: Stage, *, chaos: bool) -> int:
    """Submit, show, break, count; the exit code."""
    client = Client(on.url, on.key, patience=PATIENCE)
    work = Work(client, sources(), spread=CHAOS_SECONDS - 5 if chaos else 0, deadline=DEADLINE[chaos])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("completed", total=work.total)
        faults = Chaos(on, progress.console, seconds=CHAOS_SECONDS) if chaos else None
        work.start()
        while work.running():
            progress.update(bar, completed=work.completed)
            if faults:
                faults.step()
            time.sleep(0.05)
        progress.update(bar, completed=work.completed)
    explain(work)
    return conclude(console, on, work, chaos=chaos)


def conclude(console: Console, on: Stage, work: Work, *, chaos: bool) -> int:
    """Print the figures and the last line; 0 when nothing is lost or wrong, and the faults met something."""
    found = figures.read(on.owner)
    console.print(figures.sentences(found), highlight=False)
    lost = max(work.submitted, found.created) - min(work.completed, found.completed)
    met = f", rescued {found.rescued}, fenced {found.fenced}, quarantined {found.quarantined}" if chaos else ""
    console.print(
        f"submitted {work.submitted}, completed {work.completed}, lost {lost}, wrong {len(work.wrong)}{met}"
        f" · {found.rate:.1f} tasks/s",
        highlight=False,
        soft_wrap=True,
    )
    good = not lost and not work.wrong and work.submitted == work.total
    if chaos:
        # A run whose faults met nothing has shown nothing.
        good = good and found.rescued > 0 and found.fenced > 0 and not found.quarantined
    return 0 if good else 1


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
