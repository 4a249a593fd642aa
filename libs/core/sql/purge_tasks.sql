-- Delete ended tasks beyond their queue's retention, with their logs, in batches of ids. $1 limit
-- Queues are found by a skip scan, so that the bound of each is a range of its index: what is kept is never visited.
with recursive names as (
    (select queue from tasks where status = 'COMPLETED' order by queue limit 1)
    union all
    select next.queue
    from names cross join lateral (
        select tasks.queue from tasks where tasks.status = 'COMPLETED' and tasks.queue > names.queue
        order by tasks.queue limit 1
    ) as next
),
failed_names as (
    (select queue from tasks
     where status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED') order by queue limit 1)
    union all
    select next.queue
    from failed_names cross join lateral (
        select tasks.queue from tasks
        where tasks.status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED') and tasks.queue > failed_names.queue
        order by tasks.queue limit 1
    ) as next
),
aged as (
    select found.id
    from names left join queues on queues.name = names.queue
    cross join lateral (
        select tasks.id from tasks
        where tasks.status = 'COMPLETED' and tasks.queue = names.queue and tasks.finished_at <
              statement_timestamp() - make_interval(secs => coalesce(queues.completed_seconds, 604800))
        order by tasks.finished_at limit $1
    ) as found
    union all
    select found.id
    from failed_names left join queues on queues.name = failed_names.queue
    cross join lateral (
        select tasks.id from tasks
        where tasks.status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED') and tasks.queue = failed_names.queue
          and tasks.finished_at <
              statement_timestamp() - make_interval(secs => coalesce(queues.failed_seconds, 2592000))
        order by tasks.finished_at limit $1
    ) as found
),
old as (
    select found.id
    from (select id from aged limit $1) as aged cross join lateral (
        -- Still ended: it may have been given a new life just now.
        select tasks.id from tasks where tasks.id = aged.id and tasks.finished_at is not null
        for update skip locked
    ) as found
),
silenced as (delete from task_logs using old where task_logs.task_id = any (array[old.id]))
delete from tasks using old where tasks.id = any (array[old.id]) returning tasks.id
