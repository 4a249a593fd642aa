-- Candidates for a worker without Redis, most urgent first; the claim decides. $1 queues  $2 types  $3 limit  $4 after
select found.id, found.seq, found.queue, found.type, found.priority
from unnest($1::text[]) as queues (name)
cross join unnest($2::text[]) as types (name)
cross join unnest(array['HIGH', 'NORMAL', 'LOW']::priority_type[]) as priorities (name)
cross join lateral (
    select tasks.id, tasks.seq, tasks.queue, tasks.type, tasks.priority::text as priority, tasks.priority as urgency
    from tasks
    where tasks.status = 'QUEUED' and tasks.queue = queues.name and tasks.type = types.name
      and tasks.priority = priorities.name and tasks.seq > $4
    order by tasks.seq
    limit $3
) as found
order by found.urgency desc, found.seq
limit $3
