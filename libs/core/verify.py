"""`python -m core.verify [-o table|json] [--after ID]`: prove that tasks and their events agree.

`taskflow verify` runs this. It reads all tasks and all events of DATABASE_URL, in slices: no snapshot stays open, and
nothing changes. The login must be able to read `tasks`, `task_events` and `workers`: the owner of the tables, or
`taskflow_api`.

Exit code 0: nothing contradicts the events; 1: something does; 2: wrong usage, setting or schema; 3: PostgreSQL
cannot be reached; 6: the login may not read the tables; 130: interrupted.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from core import clock
from core import queue_manager as queue
from core.config import settings
from core.errors import SettingError, Unavailable
from core.pool import Database

SLICE_TASKS: Final = 5000
SLICE_EVENTS: Final = 20_000
STATEMENT_TIMEOUT: Final = "30s"
MOST_TRIES: Final = 5  # of one slice, each with a quarter of the one before
PAUSE_SECONDS: Final = 1.0  # after the first of them; it doubles
TELL_SECONDS: Final = 5.0
MOST_LISTED: Final = 10_000


@dataclass(slots=True)
class Report:
    """What was read so far. `last` is the id up to which everything was verified."""

    last: UUID
    tasks: int = 0
    events: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    listed: list[queue.Contradiction] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many contradictions there are."""
        return sum(self.kinds.values())

    def add(self, part: queue.Verified) -> list[queue.Contradiction]:
        """Count a slice; return what of it is to be listed."""
        self.last, self.tasks, self.events = part.last, self.tasks + part.tasks, self.events + part.events
        self.kinds.update(one.kind for one in part.found)
        fresh = part.found[: MOST_LISTED - len(self.listed)]
        self.listed += fresh
        return fresh


async def slices(database: Database, after: UUID, *, tasks: int, events: int) -> AsyncIterator[queue.Verified]:
    """Yield what each slice after `after` holds. Raises Unavailable.

    Where PostgreSQL does not answer in time, the slice is read again, a quarter of it; later ones grow again.
    """
    async with database.connection() as tx:
        await tx.fetchval("select 1")  # a wrong address is told at once, and not after all the tries of a slice
    share, tries = 1.0, 0
    while True:
        try:
            async with database.connection() as tx, tx.transaction(readonly=True):
                part = await queue.verify_slice(
                    tx, after, tasks=max(1, int(tasks * share)), events=max(1, int(events * share))
                )
        except Unavailable:
            tries += 1
            if tries == MOST_TRIES:
                raise
            await clock.system.sleep(PAUSE_SECONDS * 2 ** (tries - 1))
            share /= 4
            continue
        share, tries = min(1.0, share * 2), 0
        yield part
        if part.done:
            return
        after = part.last


def database_of(url: str) -> Database:
    """Return a database whose session reads by ranges of ids, whatever the statistics say."""
    return Database(
        url,
        name="tf-verify",
        size=1,
        hot=False,
        statement_timeout=STATEMENT_TIMEOUT,
        enable_seqscan="off",
        enable_bitmapscan="off",
        jit="off",
    )


async def verify(report: Report, *, as_json: bool) -> int:
    """Verify everything after `report.last`, and print it; the exit code."""
    told = clock.monotonic()
    async with database_of(settings.database_url) as database:
        async for part in slices(database, report.last, tasks=SLICE_TASKS, events=SLICE_EVENTS):
            fresh = report.add(part)
            if not as_json:
                sys.stdout.writelines(f"{one.id}  {one.kind:<13}  {one.what}\n" for one in fresh)
                sys.stdout.flush()
            if clock.monotonic() - told >= TELL_SECONDS:
                told = clock.monotonic()
                _tell(f"verified {report.tasks:,} tasks and {report.events:,} events, up to {report.last}")
    sys.stdout.write(_document(report) if as_json else _summary(report))
    return 1 if report.number else 0


def _document(report: Report) -> str:
    listed = [{**asdict(one), "id": str(one.id)} for one in report.listed]
    document = {
        "ok": not report.number, "tasks": report.tasks, "events": report.events, "kinds": report.kinds, "found": listed,
    }  # fmt: skip
    return json.dumps(document, indent=2) + "\n"


def _summary(report: Report) -> str:
    read = f"{report.tasks:,} tasks and {report.events:,} events"
    if not report.number:
        return f"verified {read}: nothing contradicts them\n"
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.kinds.items()))
    more = f"; the first {MOST_LISTED:,} are listed" if report.number > len(report.listed) else ""
    return f"verified {read}: {report.number:,} contradictions ({kinds}){more}\n"


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _stopped(report: Report, why: str) -> None:
    again = f"; to go on from there, run it with --after {report.last}" if report.tasks else ""
    _tell(f"{why}{again}")


def main(arguments: Sequence[str]) -> int:
    """Verify the database of DATABASE_URL."""
    parser = argparse.ArgumentParser(prog="taskflow verify", description="prove that tasks and their events agree")
    parser.add_argument("-o", choices=("table", "json"), default="table", help="format of the output (%(default)s)")
    parser.add_argument("--after", type=UUID, default=queue.FIRST_ID, help="id of the last task not to be read")
    asked = parser.parse_args(arguments)
    report = Report(asked.after)
    try:
        return asyncio.run(verify(report, as_json=asked.o == "json"))
    except SettingError as wrong:
        _tell(f"{wrong}")
        return 2
    except asyncpg.UndefinedTableError:
        _tell("the database has no tables of TaskFlow; run: python -m core.migrate")
        return 2
    except asyncpg.InsufficientPrivilegeError as refused:
        _tell(f"{refused}; use the login of the migrations or of the API, which may read all that is needed")
        return 6
    except Unavailable as away:
        _stopped(report, f"{away}; check DATABASE_URL, and whether PostgreSQL runs")
        return 3
    except KeyboardInterrupt:
        _stopped(report, "interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
