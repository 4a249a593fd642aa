-- Raise the floors of the routes that workers serve: below a floor no row is QUEUED, and none ever will be.
-- $1 how far the sequence is settled: before this statement began  $2 least step
-- $3 seconds: only of queues in which something ended since then; null is all
-- Each look begins at the old floor, so it visits what was claimed since the last time, however old somebody's snapshot
-- is. A floor that was true once stays true, so it does not matter whose word is the last. None is above the sequence:
-- PostgreSQL may have been set back to an earlier time since $1 was known.
with settled as materialized (
    select least($1::bigint, last_value) as seq from task_seq
),
served as (
    select distinct served.queue, kinds.name as type
    from workers
    cross join lateral unnest(workers.queues) as served (queue)
    cross join lateral unnest(workers.sync_types || workers.async_types) as kinds (name)
),
busy as materialized (
    select names.queue
    from (select distinct queue from served) as names
    where $3::float8 is null
       or exists (select from tasks
                  where status = 'COMPLETED' and queue = names.queue
                    and finished_at > statement_timestamp() - make_interval(secs => $3))
       or exists (select from tasks
                  where status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED') and queue = names.queue
                    and finished_at > statement_timestamp() - make_interval(secs => $3))
),
looked as (
    select served.queue, served.type, priorities.name as priority, coalesce(floors.seq, 0) as old,
           least(coalesce(first.seq - 1, settled.seq), settled.seq) as seq
    from served
    cross join settled
    join busy on busy.queue = served.queue
    cross join unnest(enum_range(null::priority_type)) as priorities (name)
    left join ready_floors as floors
        on floors.queue = served.queue and floors.type = served.type and floors.priority = priorities.name
    left join lateral (
        select tasks.seq from tasks
        where tasks.status = 'QUEUED' and tasks.queue = served.queue and tasks.type = served.type
          and tasks.priority = priorities.name and tasks.seq > coalesce(floors.seq, 0)
        order by tasks.seq
        limit 1
    ) as first on true
)
insert into ready_floors (queue, type, priority, seq)
select queue, type, priority, seq from looked where seq - old >= $2
on conflict (queue, type, priority) do update set seq = greatest(ready_floors.seq, excluded.seq)
returning queue, type, priority::text as priority, seq
