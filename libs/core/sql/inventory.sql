-- What PostgreSQL says that a worker runs. $1 worker
select id, attempt, claim, status::text as status
from tasks where worker_id = $1 and status in ('IN_PROGRESS', 'CANCELLING')
