-- What became of tasks that were submitted, when the answer to the INSERT was lost. $1 ids
-- A task that has moved on since is told as it is now.
select tasks.id, tasks.status::text as status, tasks.created_at, tasks.gated
from tasks where tasks.id = any ($1::uuid[])
