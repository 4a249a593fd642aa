-- Let tasks of gated keys through, the most urgent and oldest first. One row of the arrays per key.
-- $1 queues  $2 owners  $3 keys  $4 how many of each  $5 announced types
with chosen as (
    select found.id, row_number() over (order by gates.place, found.urgency, found.scheduled_at, found.id) as place
    from unnest($1::text[], $2::bigint[], $3::text[], $4::int[]) with ordinality
         as gates (queue, owner_id, key, most, place)
    cross join lateral (
        select waiting.id, waiting.scheduled_at, priorities.urgency
        from unnest(array['HIGH', 'NORMAL', 'LOW']::priority_type[]) with ordinality as priorities (name, urgency)
        cross join lateral (
            select tasks.id, tasks.scheduled_at
            from tasks
            where tasks.status = 'PENDING' and tasks.gated and tasks.queue = gates.queue
              and tasks.owner_id = gates.owner_id and tasks.concurrency_key = gates.key
              and tasks.priority = priorities.name and tasks.scheduled_at <= statement_timestamp()
              and tasks.type = any ($5::text[])
              and (tasks.expires_at is null or tasks.expires_at > statement_timestamp())
            order by tasks.scheduled_at, tasks.id
            limit gates.most
        ) as waiting
        order by priorities.urgency, waiting.scheduled_at, waiting.id
        limit gates.most
    ) as found
),
locked as (
    select found.id, nextval('task_seq') as seq
    from (select * from chosen order by place) as chosen cross join lateral (
        select tasks.id from tasks
        where tasks.id = chosen.id and tasks.status::text = 'PENDING' and tasks.gated
        for update skip locked
    ) as found
)
update tasks
set status = 'QUEUED', permit = true, seq = locked.seq, updated_at = clock_timestamp()
from locked
where tasks.id = any (array[locked.id])
returning tasks.id, tasks.status::text as status, 'PENDING' as previous, tasks.queue, tasks.owner_id,
          tasks.concurrency_key, tasks.gated, tasks.priority::text as priority, tasks.type, tasks.attempt,
          tasks.worker_id, tasks.seq
