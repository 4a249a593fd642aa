-- Bring the rows of a queue under its new cap: running ones count from now on, queued ones lose their place in the
-- order to the gate. (From under a cap that was taken away rows come by themselves: the gate lets all through.)
-- $1 queue  $2 limit
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
where tasks.id = any (array[locked.id])
returning tasks.id
