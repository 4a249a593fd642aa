-- Let tasks of gated keys through, the most urgent and oldest first. One row of the arrays per key.
-- $1 queues  $2 owners  $3 keys  $4 how many of each key  $5 announced types  $6 how many of its queue, null for no cap
-- The room of a queue is shared out among what is really there: given to keys beforehand, it would be lost on one
-- whose tasks cannot go yet, round after round.
with waiting as (
    select found.id, found.urgency, found.scheduled_at, gates.room,
           row_number() over (partition by gates.queue order by found.urgency, found.scheduled_at, found.id) as rank
    from unnest($1::text[], $2::bigint[], $3::text[], $4::int[], $6::int[]) as gates (queue, owner_id, key, most, room)
    cross join lateral (
        select first.id, first.scheduled_at, priorities.urgency
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
        ) as first
        order by priorities.urgency, first.scheduled_at, first.id
        limit gates.most
    ) as found
),
locked as (
    select found.id, nextval('task_seq') as seq
    from (select id from waiting where room is null or rank <= room order by urgency, scheduled_at, id) as chosen
    cross join lateral (
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
          tasks.worker_id
