-- How many tasks of each queue wait and run, by priority; counting a queue's waiting ones stops at $1 of each kind.
-- The counts are those of depth.sql, from the same ranges of the same partial indexes.
with names as (
    select name from queues
),
waiting as (
    select names.name as queue, 'PENDING' as status, found.priority
    from names cross join lateral (
        select priority from tasks where status = 'PENDING' and not gated and queue = names.name limit $1
    ) as found
    union all
    select names.name, 'PENDING', found.priority
    from names cross join lateral (
        select priority from tasks where status = 'PENDING' and gated and queue = names.name limit $1
    ) as found
    union all
    select names.name, 'QUEUED', found.priority
    from names cross join lateral (
        select priority from tasks where status = 'QUEUED' and queue = names.name limit $1
    ) as found
    union all
    select queue, 'IN_PROGRESS', priority from tasks where status in ('IN_PROGRESS', 'CANCELLING')
)
select queue, status, priority::text as priority, count(*) as number from waiting group by queue, status, priority
