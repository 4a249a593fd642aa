-- Candidates for a worker without Redis, most urgent first; the claim decides. $1 queues  $2 types  $3 limit
-- $4 queues  $5 types  $6 priorities  $7 seqs: beyond which to look in some of these; elsewhere from the floor.
-- Not to save a look at rows: what was claimed since the oldest snapshot still stands in the index, and is visited.
-- Those of a paused queue would all be refused, and stand in the way of the others.
select found.id, found.seq, found.queue, found.type, found.priority
from (select name from unnest($1::text[]) as given (name)
      where not exists (select from queues where queues.name = given.name and queues.paused)) as names
cross join unnest($2::text[]) as types (name)
cross join unnest(array['HIGH', 'NORMAL', 'LOW']::priority_type[]) as priorities (name)
left join unnest($4::text[], $5::text[], $6::text[], $7::bigint[]) as marks (queue, type, priority, seq)
    on marks.queue = names.name and marks.type = types.name and marks.priority = priorities.name::text
left join ready_floors as floors
    on floors.queue = names.name and floors.type = types.name and floors.priority = priorities.name
cross join lateral (
    select tasks.id, tasks.seq, tasks.queue, tasks.type, tasks.priority::text as priority, tasks.priority as urgency
    from tasks
    where tasks.status = 'QUEUED' and tasks.queue = names.name and tasks.type = types.name
      and tasks.priority = priorities.name and tasks.seq > greatest(marks.seq, floors.seq, 0)
    order by tasks.seq
    limit $3
) as found
order by found.urgency desc, found.seq
limit $3
