-- Read back a claim whose answer was lost. $1 ids  $2 claim  $3 worker  $4 its secret
select tasks.id, attempt, type, payload::text as payload, queue, priority::text as priority, timeout_seconds,
       max_attempts, retry_count, crash_count, isolation, date_part('epoch', tasks.created_at) as created_at,
       queues.default_max_attempts, queues.default_timeout_seconds, null::float8 as waited
from tasks left join queues on queues.name = tasks.queue
where exists (select from workers where id = $3 and secret_hash = sha256(uuid_send($4)))
  and tasks.id = any ($1::uuid[]) and tasks.claim = $2 and tasks.worker_id = $3
  and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
