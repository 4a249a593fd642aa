-- How many tasks of each queue wait, run and failed; counting stops at $2. $1 queues, or null for all
-- Each count is a range of one partial index that begins with the queue; running ones, bounded by all slots, are
-- counted in one go. The age of the oldest QUEUED task is that of the oldest head of (type, priority), by a skip scan.
with recursive names as (
    select name from queues where $1::text[] is null or name = any ($1)
),
running as materialized (
    select queue, count(*) as number from tasks where status in ('IN_PROGRESS', 'CANCELLING') group by queue
),
heads as (
    select names.name, head.type, head.priority, head.updated_at, 1 as place
    from names cross join lateral (
        select type, priority, updated_at from tasks where status = 'QUEUED' and queue = names.name
        order by type, priority, seq limit 1
    ) as head
    union all
    select heads.name, next.type, next.priority, next.updated_at, heads.place + 1
    from heads cross join lateral (
        select tasks.type, tasks.priority, tasks.updated_at from tasks
        where tasks.status = 'QUEUED' and tasks.queue = heads.name
          and (tasks.type, tasks.priority) > (heads.type, heads.priority)
        order by tasks.type, tasks.priority, tasks.seq limit 1
    ) as next
    where heads.place < 1000
),
oldest as materialized (
    select name, min(updated_at) as since from heads group by name
)
select names.name as queue, queues.paused, queues.max_concurrent, queues.max_per_key,
    (select count(*) from (select from tasks where status = 'PENDING' and not gated and queue = names.name limit $2) as p)
    + (select count(*) from (select from tasks where status = 'PENDING' and gated and queue = names.name limit $2) as g)
        as pending,
    (select count(*) from (select from tasks where status = 'QUEUED' and queue = names.name limit $2) as q) as queued,
    least(coalesce(running.number, 0), $2) as running,
    (select count(*) from (select from tasks where finished_at > statement_timestamp() - interval '1 hour'
                           and status in ('FAILED', 'QUARANTINED') and queue = names.name limit $2) as f) as failed,
    extract(epoch from clock_timestamp() - oldest.since)::float8 as oldest_queued_seconds
from names
join queues on queues.name = names.name
left join running on running.queue = names.name
left join oldest on oldest.name = names.name
order by names.name
