"""A running task names its worker and its claim: without them nothing ever takes it back from a dead worker.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

from core.online import lock_briefly

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BATCH = 500
# What a rescue does, uncharged: nobody knows of a death. The claim and the worker that the row lost stand on the
# attempt's STARTED event; with them the event here is the end of that attempt.
REPAIR = """
with broken as (
    select tasks.id, tasks.status::text as previous, tasks.attempt, tasks.started_at,
           coalesce(tasks.claim, started.claim) as claim, coalesce(tasks.worker_id, started.worker_id) as worker_id,
           tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated
    from tasks
    left join queues on queues.name = tasks.queue
    left join lateral (
        select task_events.claim, task_events.worker_id from task_events
        where task_events.task_id = tasks.id and task_events.attempt = tasks.attempt
          and task_events.event_type = 'STARTED'
        order by task_events.created_at desc, task_events.id desc limit 1
    ) as started on true
    where tasks.status in ('IN_PROGRESS', 'CANCELLING') and (tasks.worker_id is null or tasks.claim is null)
    order by tasks.id
    limit {batch}
    for update of tasks
),
decided as (
    select broken.*, case when previous = 'CANCELLING' then 'CANCELLED' when held_gated then 'PENDING'
                          else 'QUEUED' end as target
    from broken
),
moved as (
    update tasks
    set status = decided.target::task_status,
        seq = case when decided.target = 'QUEUED' then nextval('task_seq') else tasks.seq end,
        gated = case when decided.target = 'CANCELLED' then tasks.gated else decided.held_gated end,
        permit = false, claim = null,
        worker_id = case when decided.target = 'CANCELLED' then decided.worker_id end,
        cancel_deadline = null,
        finished_at = case when decided.target = 'CANCELLED' then clock_timestamp() end,
        updated_at = clock_timestamp()
    from decided
    where tasks.id = any (array[decided.id])
    returning tasks.id, decided.target, decided.attempt, decided.claim, decided.worker_id, decided.started_at
)
insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at, cause, message)
select id, (case when target = 'CANCELLED' then target else 'RESCUED' end)::event_type, attempt, claim, worker_id,
       started_at, 'worker_lost', 'the running task named no worker or no claim; a migration took it back'
from moved
"""
# Dropped first, because the migration may have been cut short after this step.
ADD = """
alter table tasks drop constraint if exists tasks_running_is_held, add constraint tasks_running_is_held
check (status <> 'IN_PROGRESS' or (worker_id is not null and claim is not null)) not valid
"""
# CANCELLING is checked after the update. PostgreSQL checks a constraint on the row as the statement's snapshot has it,
# before it sees that the row has changed since: a cancel that waits for a claim would be refused for the claim that
# the row did not have yet. Commit 9b01780, which runs beside this, cancels so.
FUNCTION = """
create or replace function taskflow_refuse_unheld_task() returns trigger
language plpgsql set search_path = pg_catalog, public, pg_temp as $$
begin
    raise exception 'task % is %, and names no worker or no claim', new.id, new.status
        using errcode = 'check_violation', table = tg_table_name, constraint = 'tasks_running_is_held';
end $$
"""
TRIGGER = """
create or replace trigger tasks_cancelling_is_held after insert or update on tasks for each row
when (new.status = 'CANCELLING' and (new.worker_id is null or new.claim is null))
execute function taskflow_refuse_unheld_task()
"""


def repair() -> None:
    """In batches, each a transaction of its own, on the small index of what runs."""
    connection = op.get_bind()
    connection.exec_driver_sql("set enable_seqscan = off")
    while connection.exec_driver_sql(REPAIR.format(batch=BATCH)).rowcount >= BATCH:
        pass
    connection.exec_driver_sql("reset enable_seqscan")


def upgrade() -> None:
    """Apply, in transactions of its own, so that the look at all rows stops no writer. It can be repeated."""
    with op.get_context().autocommit_block():
        repair()
        op.execute(FUNCTION)
        op.execute("revoke all on function taskflow_refuse_unheld_task() from public")
        lock_briefly(op.get_bind(), ADD, TRIGGER)
        repair()  # what was broken between the two; from now on nothing can be
        op.execute("alter table tasks validate constraint tasks_running_is_held")


def downgrade() -> None:
    """Take back."""
    with op.get_context().autocommit_block():
        lock_briefly(
            op.get_bind(),
            "drop trigger if exists tasks_cancelling_is_held on tasks",
            "alter table tasks drop constraint if exists tasks_running_is_held",
        )
        op.execute("drop function if exists taskflow_refuse_unheld_task()")
