"""What a run costs: CPU seconds by kind of process, commits and WAL by PostgreSQL's own counters."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from core.database import Database


@dataclass(frozen=True, slots=True)
class Counters:
    """Readings of PostgreSQL's counters."""

    commits: int
    wal_bytes: int

    def since(self, before: "Counters") -> "Counters":
        """What was added."""
        return Counters(self.commits - before.commits, self.wal_bytes - before.wal_bytes)


async def counters(database: Database) -> Counters:
    """Read them."""
    async with database.connection() as tx:
        await tx.execute("select pg_stat_force_next_flush()")
        row = await tx.fetchrow(
            "select xact_commit as commits, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint as wal_bytes"
            " from pg_stat_database where datname = current_database()"
        )
    return Counters(row["commits"], row["wal_bytes"])


def busy_seconds(trees: Mapping[str, Sequence[psutil.Process]]) -> dict[str, float]:
    """CPU seconds, user and system, of each group of living processes."""
    found: dict[str, float] = {}
    for name, processes in trees.items():
        found[name] = 0.0
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found[name] += times.user + times.system
    return found
