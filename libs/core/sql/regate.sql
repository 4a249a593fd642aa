-- Bring the rows of a queue under its new cap, or from under it: running ones count from now on, queued ones lose
-- their place in the order to the gate. $1 queue  $2 limit
with affected as (
    select tasks.id
    from tasks join queues on queues.name = tasks.queue
    where tasks.queue = $1 and not tasks.gated and queues.max_concurrent > 0
      and tasks.status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
    order by tasks.id
    limit $2
    for update of tasks skip locked
)
update tasks
set gated = true,
    status = case when tasks.status::text = 'QUEUED' then 'PENDING'::task_status else tasks.status end,
    updated_at = clock_timestamp()
from affected
where tasks.id = affected.id
returning tasks.id
