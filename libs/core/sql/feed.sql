-- Read QUEUED rows beyond each cursor, in the order of starting inside it. It locks and writes nothing.
-- $1 queues  $2 types  $3 priorities  $4 seq of each cursor  $5 how many of each at most
select found.id, found.seq, cursors.queue, cursors.type, cursors.priority
from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::int[]) as cursors (queue, type, priority, after, most)
cross join lateral (
    select tasks.id, tasks.seq
    from tasks
    where tasks.status = 'QUEUED' and tasks.queue = cursors.queue and tasks.type = cursors.type
      and tasks.priority = cursors.priority::priority_type and tasks.seq > cursors.after
    order by tasks.seq
    limit cursors.most
) as found
