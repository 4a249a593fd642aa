-- End attempts that returned: IN_PROGRESS to COMPLETED, the one move that nearly every attempt ends with, in the fewest
-- steps. What does not come back is not judged here: finish.sql is asked about it (cancelled meanwhile, or fenced).
-- $1 ids, sorted  $2 attempts  $3 claims  $4 results
-- No step of its own locks the rows: the ids are sorted, so the update takes its locks in their order, and where it
-- has waited for one it looks at the condition and the row anew.
with given as (
    select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[]) as given (id, attempt, claim, result)
),
moved as (
    update tasks
    set status = 'COMPLETED', permit = false, claim = null, isolation = 0, cancel_deadline = null,
        result = given.result::json, error = null, finished_at = clock_timestamp(), updated_at = clock_timestamp()
    from given
    where tasks.id = any (array[given.id]) and tasks.attempt = given.attempt and tasks.claim = given.claim
      and tasks.status::text = 'IN_PROGRESS'
    returning tasks.id, tasks.queue, tasks.owner_id, tasks.concurrency_key, tasks.priority, tasks.type, tasks.attempt,
              tasks.worker_id, tasks.started_at, given.claim
),
told as (
    insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at, cause)
    select id, 'COMPLETED', attempt, claim, worker_id, started_at, 'returned' from moved
),
alike as (
    select queue, owner_id, concurrency_key, priority, type, worker_id, array_agg(id) as ids,
           array_agg(attempt) as attempts
    from moved
    group by queue, owner_id, concurrency_key, priority, type, worker_id
)
-- One row for all that are alike but for id and attempt: a row each costs its reader more than all the rest.
select ids, attempts, 'COMPLETED' as status, 'IN_PROGRESS' as previous, queue, owner_id, concurrency_key,
       concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as gated, priority::text, type, worker_id
from alike left join queues on queues.name = alike.queue
