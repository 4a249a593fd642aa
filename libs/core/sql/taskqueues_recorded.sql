-- Every queue that a TaskQueue sets, and which one that is.
select name as queue, coalesce(taskqueue ->> 'namespace', '') as namespace, coalesce(taskqueue ->> 'name', '') as name,
       taskqueue ->> 'uid' as uid
from queues
where taskqueue ->> 'uid' <> ''
order by name
