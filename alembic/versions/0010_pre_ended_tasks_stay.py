"""A task that has ended changes no more, except by a retry.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

from core.online import lock_briefly

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The SQLSTATE is outside the classes by which a worker blames the data (22, 23, 54), and outside those that mean
# that PostgreSQL is away: neither a retry nor another row would help.
# A migration that must change ended tasks says `set local taskflow.change_ended_tasks = on`. session_user, not
# current_user: inside a function that runs with the rights of the table's owner, its caller is still its caller.
FUNCTION = """
create or replace function taskflow_keep_ended_task() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    if old.status <> 'COMPLETED' and new.generation = old.generation + 1 and new.status in ('QUEUED', 'PENDING')
       and new.id = old.id and new.owner_id = old.owner_id and new.attempt = old.attempt and new.claim is null then
        return null;
    end if;
    if current_setting('taskflow.change_ended_tasks', true) = 'on'
       and (select pg_has_role(session_user, relowner, 'usage') from pg_class where oid = tg_relid) then
        return null;
    end if;
    raise exception 'task % has ended as % and cannot change', old.id, old.status
        using errcode = 'TF001', table = tg_table_name,
              hint = 'Only a retry changes an ended task. Submit a new task instead.';
end $$
"""
TRIGGER = """
create or replace trigger tasks_ended_stay after update on tasks for each row
when (old.status in ('COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED'))
execute function taskflow_keep_ended_task()
"""


def upgrade() -> None:
    """Apply. It can be repeated."""
    with op.get_context().autocommit_block():
        op.execute(FUNCTION)
        op.execute("revoke all on function taskflow_keep_ended_task() from public")
        lock_briefly(op.get_bind(), TRIGGER)


def downgrade() -> None:
    """Take back."""
    with op.get_context().autocommit_block():
        lock_briefly(op.get_bind(), "drop trigger if exists tasks_ended_stay on tasks")
        op.execute("drop function if exists taskflow_keep_ended_task()")
