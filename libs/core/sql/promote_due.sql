-- PENDING tasks whose time has come become QUEUED, oldest first; a task that is gated by now is handed to the gate.
-- $1 limit
with due as (
    select tasks.id
    from tasks
    where tasks.status = 'PENDING' and not tasks.gated and tasks.scheduled_at <= clock_timestamp()
    order by tasks.scheduled_at
    limit $1
    for update skip locked
),
judged as (
    select tasks.id, tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated,
           row_number() over (order by tasks.scheduled_at, tasks.id) as place
    from due join tasks on tasks.id = due.id left join queues on queues.name = tasks.queue
),
placed as (
    select id, held_gated, case when not held_gated then nextval('task_seq') end as seq
    from (select * from judged order by place) as ordered
)
update tasks
set status = (case when placed.held_gated then 'PENDING' else 'QUEUED' end)::task_status,
    gated = placed.held_gated, seq = coalesce(placed.seq, tasks.seq), updated_at = clock_timestamp()
from placed
where tasks.id = placed.id
returning tasks.id, tasks.status::text as status, 'PENDING' as previous, tasks.queue, tasks.owner_id,
          tasks.concurrency_key, tasks.gated, tasks.priority::text as priority, tasks.type, tasks.attempt,
          tasks.worker_id, tasks.seq
