-- Claim QUEUED tasks for a worker: the only way into IN_PROGRESS.
-- $1 ids, in the order wanted  $2 worker  $3 claim  $4 types it can run  $5 most payload bytes  $6 whole worker free
-- $7 worker deaths from which on a task wants a whole worker  $8 the worker's secret
-- The lateral look-up stays on the primary key whatever the statistics say, and so does `= any (array[...])`: no merge
-- order can be made of it, which is what tempts the planner to walk the whole key of a table it believes empty. The
-- other statements write it for the same reason. SKIP LOCKED: a row that another transaction is moving is not waited
-- for; whoever holds it decides what becomes of it. A row that is locked stays where it is, so the update finds it by its
-- place in the table and not by the key again. One that became QUEUED anew since this statement began has its new
-- version where the snapshot does not see it: it is left for the next try, as one that is locked.
-- The worker's row is locked in the one mode that a cordon waits for and a beat does not: once a cordon is committed, no
-- claim that it did not see can follow.
with free as (
    select from workers where id = $2 and state = 'alive' and secret_hash = sha256(uuid_send($8)) for key share
),
wanted as (
    select wanted.id, wanted.place
    from unnest($1::uuid[]) with ordinality as wanted (id, place)
    where exists (select from free)
),
locked as (
    select wanted.place, found.*
    from wanted cross join lateral (
        select tasks.ctid as row, tasks.payload_bytes, tasks.updated_at as queued_at
        from tasks
        left join queues on queues.name = tasks.queue
        where tasks.id = wanted.id
          and tasks.status::text = 'QUEUED'
          and tasks.type = any ($4::text[])
          and (tasks.permit or (tasks.concurrency_key = '' and coalesce(queues.max_concurrent, 0) = 0))
          and not coalesce(queues.paused, false)
          and (tasks.expires_at is null or tasks.expires_at > clock_timestamp())
          and (tasks.worker_deaths < $7 or $6)
        for update of tasks skip locked
    ) as found
),
fitting as (
    select row, queued_at from (
        select row, place, queued_at, sum(payload_bytes) over (order by place) - payload_bytes as before from locked
    ) as sized
    where before < $5
),
claimed as (
    update tasks
    set status = 'IN_PROGRESS', attempt = tasks.attempt + 1, claim = $3, worker_id = $2,
        started_at = clock_timestamp(), updated_at = clock_timestamp(), progress = null
    from fitting
    where tasks.ctid = fitting.row
    returning tasks.id, tasks.attempt, tasks.type, tasks.payload::text as payload, tasks.queue,
              tasks.priority::text as priority, tasks.timeout_seconds, tasks.max_attempts, tasks.retry_count,
              tasks.crash_count, tasks.isolation, tasks.created_at, tasks.started_at,
              date_part('epoch', tasks.started_at - fitting.queued_at) as waited
),
told as (
    insert into task_events (task_id, event_type, created_at, attempt, claim, worker_id, started_at)
    select id, 'STARTED', started_at, attempt, $3, $2, started_at from claimed
)
-- The queue's defaults are for the worker: it alone knows what the task's definition says.
select claimed.id, attempt, type, payload, queue, priority, timeout_seconds, max_attempts, retry_count, crash_count,
       isolation, date_part('epoch', claimed.created_at) as created_at, queues.default_max_attempts,
       queues.default_timeout_seconds, waited
from claimed left join queues on queues.name = claimed.queue
