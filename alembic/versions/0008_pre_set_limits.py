"""A queue's caps are set by one call.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Volatile plpgsql: every statement takes its snapshot after the lock, so what the gate's last holder committed is seen.
# In one SQL statement, or in a stable function, it is not, and the caps break. The lock is the gate's (ADVISORY_CLASS
# and GATE_LOCK of core.verbs.leading); it is taken before the row of the queue, as the operator does. How long it waits
# for either, the session's statement_timeout says. The rows that are brought under the cap are those of regate.sql,
# word for word: $1 and $2 are the same there; a test compares them.
FUNCTION = """
create function taskflow_set_limits(text, int, int, int) returns int
language plpgsql volatile set search_path = pg_catalog, public, pg_temp as $$
declare
    regated int;
begin
    perform pg_advisory_xact_lock(29798, 2);
    update queues set max_concurrent = $3, max_per_key = $4, updated_at = clock_timestamp() where name = $1;
    if not found then
        return null;
    end if;
    with affected as (
        (select id from tasks
         where status in ('IN_PROGRESS', 'CANCELLING') and queue = $1 and not gated limit $2)
        union all
        (select id from tasks where status = 'QUEUED' and queue = $1 and not gated limit $2)
    ),
    locked as (
        select found.id, found.status
        from (select id from affected order by id limit $2) as affected cross join lateral (
            select tasks.id, tasks.status::text as status
            from tasks join queues on queues.name = tasks.queue
            where tasks.id = affected.id and not tasks.gated and queues.max_concurrent > 0
              and tasks.status::text in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
            for update of tasks skip locked
        ) as found
    )
    update tasks
    set gated = true,
        status = case when locked.status = 'QUEUED' then 'PENDING'::task_status else tasks.status end,
        updated_at = clock_timestamp()
    from locked
    where tasks.id = any (array[locked.id]);
    get diagnostics regated = row_count;
    return regated;
end $$
"""


def upgrade() -> None:
    """Apply."""
    op.execute(FUNCTION)
    # Whoever may not change queues and tasks gets nowhere with it either: it runs with its caller's rights.
    op.execute("revoke all on function taskflow_set_limits(text, int, int, int) from public")


def downgrade() -> None:
    """Take back."""
    op.execute("drop function taskflow_set_limits(text, int, int, int)")
