-- Read back a claim whose answer was lost. $1 ids  $2 claim
select tasks.id, attempt, type, payload::text as payload, queue, priority::text as priority, owner_id,
       timeout_seconds, max_attempts, retry_count, crash_count, worker_deaths, isolation, created_at, started_at, seq
from unnest($1::uuid[]) as wanted (id) join tasks on tasks.id = wanted.id
where tasks.claim = $2 and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
