"""What the audit trail says about the demo's tasks: the figures come from `task_events`, not from a clock here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

FIGURES = text("""
with events as (
    select task_events.* from task_events join tasks on tasks.id = task_events.task_id where tasks.owner_id = :owner
),
first_start as (
    select task_id, min(created_at) as at from events where event_type = 'STARTED' group by task_id
),
waits as (
    select extract(epoch from first_start.at - events.created_at)::float8 as seconds
    from events join first_start using (task_id) where event_type = 'CREATED'
),
runs as (
    select extract(epoch from created_at - started_at)::float8 as seconds from events where event_type = 'COMPLETED'
),
ends as (
    select count(*) filter (where event_type = 'CREATED') as created,
           count(*) filter (where event_type = 'STARTED') as attempts,
           count(*) filter (where event_type = 'COMPLETED') as completed,
           count(*) filter (where event_type = 'RESCUED') as rescued,
           count(*) filter (where event_type = 'FENCED') as fenced,
           count(*) filter (where event_type = 'QUARANTINED') as quarantined,
           extract(epoch from max(created_at) filter (where event_type = 'COMPLETED')
                            - min(created_at) filter (where event_type = 'CREATED'))::float8 as seconds
    from events
)
select ends.*,
       (select percentile_cont(0.5) within group (order by seconds) from waits) as wait_p50,
       (select percentile_cont(0.99) within group (order by seconds) from waits) as wait_p99,
       (select percentile_cont(0.5) within group (order by seconds) from runs) as run_p50,
       (select percentile_cont(0.99) within group (order by seconds) from runs) as run_p99
from ends
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts of events, and seconds."""

    created: int
    attempts: int
    completed: int
    rescued: int
    fenced: int
    quarantined: int
    seconds: float | None
    wait_p50: float | None
    wait_p99: float | None
    run_p50: float | None
    run_p99: float | None

    @property
    def rate(self) -> float:
        """Completed tasks a second, from the first submission to the last result."""
        return self.completed / self.seconds if self.seconds else 0.0


def read(owner: int) -> Figures:
    """Return the figures of everything that `owner` submitted."""
    from core import database

    engine: Any = database.engine
    with engine.connect() as connection:
        return Figures(**connection.execute(FIGURES, {"owner": owner}).mappings().one())


def sentences(figures: Figures) -> str:
    """Two lines for a person."""
    return (
        f"attempts {figures.attempts} for {figures.created} tasks, "
        f"rescued {figures.rescued}, fenced {figures.fenced}, quarantined {figures.quarantined}\n"
        f"wait p50 {_shown(figures.wait_p50)} p99 {_shown(figures.wait_p99)}, "
        f"run p50 {_shown(figures.run_p50)} p99 {_shown(figures.run_p99)}"
    )


def _shown(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
