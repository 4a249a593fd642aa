-- How many tasks of each queue wait, run and failed; counting stops at $2. $1 queues, or null for all
with names as (
    select name from queues where $1::text[] is null or name = any ($1)
)
select names.name as queue, queues.paused, queues.max_concurrent, queues.max_per_key,
    (select count(*) from (select from tasks where status = 'PENDING' and not gated and queue = names.name limit $2) as p)
    + (select count(*) from (select from tasks where status = 'PENDING' and gated and queue = names.name limit $2) as g)
        as pending,
    (select count(*) from (select from tasks where status = 'QUEUED' and queue = names.name limit $2) as q) as queued,
    (select count(*) from (select from tasks where status in ('IN_PROGRESS', 'CANCELLING') and queue = names.name
                           limit $2) as r) as running,
    (select count(*) from (select from tasks where finished_at > clock_timestamp() - interval '1 hour'
                           and status::text in ('FAILED', 'QUARANTINED') and queue = names.name limit $2) as f) as failed,
    (select extract(epoch from clock_timestamp() - min(oldest.updated_at))::float8
     from (select tasks.updated_at from tasks where tasks.status = 'QUEUED' and tasks.queue = names.name
           order by tasks.seq limit 1) as oldest) as oldest_queued_seconds
from names join queues on queues.name = names.name
order by names.name
