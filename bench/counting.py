"""What a run costs: CPU seconds by kind of process, commits and WAL by PostgreSQL's own counters."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from core.database import Database
from services.dev.stage import Stage


@dataclass(frozen=True, slots=True)
class Counters:
    """Readings of PostgreSQL's counters."""

    commits: int
    wal_bytes: int
    fsyncs: int

    def since(self, before: "Counters") -> "Counters":
        """What was added."""
        return Counters(self.commits - before.commits, self.wal_bytes - before.wal_bytes, self.fsyncs - before.fsyncs)


async def counters(database: Database) -> Counters:
    """Read them."""
    async with database.connection() as tx:
        await tx.execute("select pg_stat_force_next_flush()")
        row = await tx.fetchrow(
            "select xact_commit as commits, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint as wal_bytes,"
            " (select coalesce(sum(fsyncs), 0)::bigint from pg_stat_io where object = 'wal') as fsyncs"
            " from pg_stat_database where datname = current_database()"
        )
    return Counters(**row)


def processes(stage: Stage) -> dict[str, list[psutil.Process]]:
    """The processes of a stage by what they are: a worker's children apart from their supervisor."""
    found: dict[str, list[psutil.Process]] = {"postgres": _tree(stage.servers.postgres_pid)}
    found["redis"] = [*_tree(stage.servers.redis_high_pid), *_tree(stage.servers.redis_low_pid)]
    for member in stage.fleet.living():
        tree = _tree(member.pid)
        found.setdefault(member.role, []).extend(tree[:1])
        if member.role == "worker":
            found.setdefault("children", []).extend(tree[1:])
    return found


def _tree(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        return []
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


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
