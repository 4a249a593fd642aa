-- A queue as it is set now, and what its TaskQueue said last. $1 queue
select paused, max_concurrent, max_per_key, default_max_attempts, default_timeout_seconds, completed_seconds,
       failed_seconds, concurrency, taskqueue::text as taskqueue
from queues where name = $1
