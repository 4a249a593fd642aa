-- Look once whether the floors are true, and lower those that are not: above a row that is QUEUED there must be none.
-- That cannot be, unless somebody set the sequence back. It visits all that was claimed since the oldest snapshot.
with found as (
    select floors.queue, floors.type, floors.priority, first.seq
    from ready_floors as floors cross join lateral (
        select tasks.seq from tasks
        where tasks.status = 'QUEUED' and tasks.queue = floors.queue and tasks.type = floors.type
          and tasks.priority = floors.priority
        order by tasks.seq
        limit 1
    ) as first
    where first.seq <= floors.seq
)
update ready_floors as floors
set seq = found.seq - 1
from found
where floors.queue = found.queue and floors.type = found.type and floors.priority = found.priority
returning floors.queue, floors.type, floors.priority::text as priority, floors.seq
