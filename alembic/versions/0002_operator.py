"""What the operator needs: settings of a TaskQueue, what a queue's workers announced, and why a worker died.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# What the scheduler's role may do with partitions without owning them: this, and nothing else. The days are fixed
# here, because who may call it must not be able to drop the events of yesterday.
PARTITIONS = """
create function taskflow_ensure_partitions() returns setof text
language plpgsql security definer set search_path = pg_catalog, public, pg_temp set timezone = 'UTC' as $$
declare
    today constant date := (clock_timestamp() at time zone 'UTC')::date;
    ahead constant int := 3;
    kept constant int := 90;
    day date;
    name text;
begin
    for day in select generate_series(today, today + ahead, interval '1 day')::date loop
        name := 'task_events_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('public.' || name) is not null;
        -- Events of a day that nobody made a partition for went to the default one; as long as they stay there, that
        -- day's cannot be attached. The lock comes first, or events written meanwhile would be in the way again.
        lock table public.task_events_default in access exclusive mode;
        execute format('create table public.%I (like public.task_events including all)', name);
        execute format('with late as (delete from public.task_events_default where created_at >= %L and created_at < %L'
                       ' returning *) insert into public.%I select * from late', day, day + 1, name);
        execute format('alter table public.task_events attach partition public.%I for values from (%L) to (%L)',
                       name, day, day + 1);
        return next name;
    end loop;
    for name in
        select relname::text from pg_inherits join pg_class on pg_class.oid = inhrelid
        where inhparent = 'public.task_events'::regclass and relname ~ '^task_events_2[0-9]{7}$'
          and relname < 'task_events_' || to_char(today - kept, 'YYYYMMDD')
        order by relname
    loop
        execute format('drop table public.%I', name);
        return next name;
    end loop;
end $$
"""


def upgrade() -> None:
    """Apply."""
    # First, and outside any transaction: writers of a large table go on meanwhile. What a broken-off try left is
    # dropped, so that the migration can be repeated.
    with op.get_context().autocommit_block():
        for name in ("tasks_gated_types", "tasks_blocked"):
            op.drop_index(name, "tasks", postgresql_concurrently=True, if_exists=True)
        # No type is empty: only a statement that says so, too, may take this index, and no other one is tempted away
        # from tasks_gate.
        op.create_index(
            "tasks_gated_types",
            "tasks",
            ["queue", "type", "scheduled_at"],
            unique=False,
            postgresql_where=sa.text("status = 'PENDING' and gated and type <> ''"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "tasks_blocked",
            "tasks",
            ["queue"],
            unique=False,
            postgresql_where=sa.text("status = 'BLOCKED'"),
            postgresql_concurrently=True,
        )
    op.add_column("queues", sa.Column("default_max_attempts", sa.SmallInteger(), nullable=True))
    op.add_column("queues", sa.Column("default_timeout_seconds", sa.Double(), nullable=True))
    op.add_column("queues", sa.Column("concurrency", sa.Integer(), nullable=True))
    op.add_column("queues", sa.Column("taskqueue", postgresql.JSONB(), nullable=True))
    op.add_column("workers", sa.Column("death", postgresql.JSONB(), nullable=True))
    op.create_table(
        "queue_types",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "announced_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("queue"),
    )
    op.execute(PARTITIONS)
    op.execute("revoke all on function taskflow_ensure_partitions() from public")


def downgrade() -> None:
    """Take back."""
    op.drop_index("tasks_gated_types", "tasks")
    op.drop_index("tasks_blocked", "tasks")
    op.execute("drop function taskflow_ensure_partitions()")
    op.drop_table("queue_types")
    op.drop_column("workers", "death")
    for name in ("taskqueue", "concurrency", "default_timeout_seconds", "default_max_attempts"):
        op.drop_column("queues", name)
