-- How much of each cap is in use. A statement of its own, after the lock, so that its snapshot is younger than the
-- last holder's commit. Only announced types of unpaused queues are promoted; caps come with the counts.
-- $1 queues  $2 owners  $3 keys
-- A claim that was under way while the cap was set leaves a running row that is not marked as gated until the next
-- sweep: for a minute after a change of the queue such rows are counted, too.
with gates as (
    select * from unnest($1::text[], $2::bigint[], $3::text[]) as gates (queue, owner_id, key)
),
capped as materialized (
    select queues.name,
           (select count(*) from tasks where gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
            and queue = queues.name)
           + case when queues.updated_at > statement_timestamp() - interval '1 minute' then
               (select count(*) from tasks where not gated and status in ('IN_PROGRESS', 'CANCELLING')
                and queue = queues.name) else 0 end as active
    from queues
    where queues.max_concurrent > 0 and queues.name = any ($1::text[])
)
select gates.queue, gates.owner_id, gates.key, coalesce(queues.max_concurrent, 0) as max_concurrent,
       coalesce(queues.max_per_key, 1) as max_per_key, coalesce(queues.paused, false) as paused,
       (select count(*) from tasks where gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
        and queue = gates.queue and owner_id = gates.owner_id and concurrency_key = gates.key) as key_active,
       coalesce(capped.active, 0) as queue_active
from gates
left join queues on queues.name = gates.queue
left join capped on capped.name = gates.queue
