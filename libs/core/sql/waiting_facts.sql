-- What may hold a waiting task back, in one look. It locks nothing. Counting stops at a cap, which is all that matters.
-- $1 queue  $2 type  $3 owner  $4 concurrency key
with wanted as (
    select $1::text as queue, $2::text as type
),
settings as (
    select coalesce(queues.paused, false) as paused, coalesce(queues.max_concurrent, 0) as max_concurrent,
           coalesce(queues.max_per_key, 1) as max_per_key
    from wanted left join queues on queues.name = wanted.queue
),
serving as (
    select workers.free_sync, workers.free_async, workers.held_endings, wanted.type = any (workers.sync_types) as sync,
           wanted.type = any (workers.async_types) as async
    from wanted join workers on wanted.queue = any (workers.queues)
    where workers.state = 'alive'
),
capacity as (
    select count(*) as queue_workers,
           count(*) filter (where sync or async) as capable_workers,
           count(*) filter (where (sync or async) and held_endings > 0) as holding_workers,
           coalesce(sum(case when sync then free_sync else 0 end + case when async then free_async else 0 end), 0)
               as free_slots
    from serving
)
select clock_timestamp() as now, settings.*, capacity.queue_workers::int, capacity.capable_workers::int,
       capacity.free_slots::int, capacity.holding_workers::int,
       (select count(*)::int from (
            select from tasks
            where queue = $1 and gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
            limit greatest(settings.max_concurrent, 0)) as active) as queue_active,
       (select count(*)::int from (
            select from tasks
            where queue = $1 and owner_id = $3 and concurrency_key = $4
              and gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
            limit case when $4 = '' then 0 else settings.max_per_key end) as active) as key_active
from settings, capacity
