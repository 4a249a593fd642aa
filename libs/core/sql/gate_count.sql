-- How much of each cap is in use. A statement of its own, after the lock, so that its snapshot is younger than the
-- last holder's commit. Only announced types of unpaused queues are promoted; caps come with the counts.
-- $1 queues  $2 owners  $3 keys
select gates.queue, gates.owner_id, gates.key, coalesce(queues.max_concurrent, 0) as max_concurrent,
       coalesce(queues.max_per_key, 1) as max_per_key, coalesce(queues.paused, false) as paused,
       (select count(*) from tasks where gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
        and queue = gates.queue and owner_id = gates.owner_id and concurrency_key = gates.key) as key_active,
       case when coalesce(queues.max_concurrent, 0) > 0 then
           (select count(*) from tasks where gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
            and queue = gates.queue) else 0 end as queue_active
from unnest($1::text[], $2::bigint[], $3::text[]) as gates (queue, owner_id, key)
left join queues on queues.name = gates.queue
