-- Read back a claim whose answer was lost. $1 ids  $2 claim
select tasks.id, attempt, type, payload::text as payload, queue, priority::text as priority, owner_id,
       timeout_seconds, max_attempts, retry_count, crash_count, worker_deaths, isolation, created_at, started_at, seq
from tasks
where tasks.id = any ($1::uuid[]) and tasks.claim = $2 and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
