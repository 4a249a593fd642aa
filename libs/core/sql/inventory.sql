-- What PostgreSQL says that a worker runs. $1 worker  $2 its secret
select id, attempt, claim, status::text as status
from tasks
where worker_id = $1 and status in ('IN_PROGRESS', 'CANCELLING')
  and exists (select from workers where id = $1 and secret_hash = sha256(uuid_send($2)))
