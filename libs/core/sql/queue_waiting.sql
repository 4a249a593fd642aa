-- Waiting tasks of a queue, locked, so that none of them starts before it is moved. $1 queue  $2 limit
select found.id
from (
    (select id from tasks where status = 'QUEUED' and queue = $1 limit $2)
    union all
    (select id from tasks where status = 'PENDING' and gated and queue = $1 limit $2)
    union all
    (select id from tasks where status = 'PENDING' and not gated and queue = $1 limit $2)
    union all
    (select id from tasks where status = 'BLOCKED' and queue = $1 limit $2)
    limit $2
) as waiting
cross join lateral (
    select tasks.id from tasks
    where tasks.id = waiting.id and tasks.status::text in ('QUEUED', 'PENDING', 'BLOCKED')
    for update skip locked
) as found
