-- PENDING tasks whose time has come become QUEUED, oldest first. One that has a concurrency key, or whose queue has a cap
-- by now, becomes `gated` instead: it is handed to the gate, which the caller tells of the key.
-- $1 limit
-- The time is the statement's: clock_timestamp() is volatile, so no index could use it, and each look would walk
-- over everything that is scheduled for later.
with due as (
    select tasks.id, tasks.scheduled_at,
           tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated
    from tasks left join queues on queues.name = tasks.queue
    where tasks.status = 'PENDING' and not tasks.gated and tasks.scheduled_at <= statement_timestamp()
    order by tasks.scheduled_at
    limit $1
    for update of tasks skip locked
),
placed as (
    select id, held_gated, case when not held_gated then nextval('task_seq') end as seq
    from (select * from due order by scheduled_at, id) as ordered
)
update tasks
set status = (case when placed.held_gated then 'PENDING' else 'QUEUED' end)::task_status,
    gated = placed.held_gated, seq = coalesce(placed.seq, tasks.seq), updated_at = clock_timestamp()
from placed
where tasks.id = any (array[placed.id])
returning tasks.id, tasks.status::text as status, 'PENDING' as previous, tasks.queue, tasks.owner_id,
          tasks.concurrency_key, tasks.gated, tasks.priority::text as priority, tasks.type, tasks.attempt,
          tasks.worker_id
