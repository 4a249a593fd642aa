-- A worker's sign of life; the answer tells whether it still lives and what it is asked to cancel.
-- $1 worker  $2 free sync slots  $3 free async slots  $4 the worker's secret
-- $5 endings that it holds, once PostgreSQL has not taken one of them for a minute
-- What it holds is not looked through for that: under an open snapshot everything that it ever claimed would be there.
with beaten as (
    update workers
    set beat_seq = beat_seq + 1, beat_at = clock_timestamp(), free_sync = $2, free_async = $3,
        held_endings = $5
    where id = $1 and state in ('alive', 'cordoned', 'draining') and secret_hash = sha256(uuid_send($4))
    returning state
)
select beaten.state, asked.id, asked.attempt
from beaten left join (
    select id, attempt from tasks
    where worker_id = $1 and cancel_deadline is not null and status::text = 'CANCELLING'
) as asked on true
