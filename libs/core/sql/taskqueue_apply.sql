-- Set a queue as its TaskQueue says, unless it is another's. No row comes back then. Runs under the gate's lock.
-- $1 queue  $2 paused  $3 max_concurrent  $4 max_per_key  $5 max_attempts  $6 timeout (s), null for none
-- $7 completed_seconds  $8 failed_seconds  $9 concurrency  $10 the TaskQueue and what it says (JSON)
-- A pause by REST stays: `paused` is written only when the TaskQueue itself changed its mind.
insert into queues as kept (name, paused, max_concurrent, max_per_key, default_max_attempts, default_timeout_seconds,
                            completed_seconds, failed_seconds, concurrency, taskqueue)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb)
on conflict (name) do update
set paused = case when excluded.paused = coalesce((kept.taskqueue ->> 'paused')::boolean, false) then kept.paused
                  else excluded.paused end,
    max_concurrent = excluded.max_concurrent, max_per_key = excluded.max_per_key,
    default_max_attempts = excluded.default_max_attempts,
    default_timeout_seconds = excluded.default_timeout_seconds,
    completed_seconds = excluded.completed_seconds, failed_seconds = excluded.failed_seconds,
    concurrency = excluded.concurrency, taskqueue = excluded.taskqueue, updated_at = clock_timestamp()
where kept.taskqueue is null or kept.taskqueue ->> 'uid' = excluded.taskqueue ->> 'uid'
returning name
