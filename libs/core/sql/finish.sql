-- End attempts: result, move, event and logs in one statement, under the fence (id, attempt, claim). One array per column.
-- A row that does not come back is fenced, or another transaction has locked it: still_held.sql tells which. This
-- statement waits for no row, so one locked row delays no other ending. An ending that is fenced leaves no logs.
-- $1 ids, sorted  $2 attempts  $3 claims  $4 where from IN_PROGRESS  $5 the same when gated  $6 where from CANCELLING
-- $7 results  $8 errors  $9 delays (s)  $10 failures  $11 crashes  $12 isolation  $13 reasons  $14 logs
-- The rows are locked first, in id order: the move is then decided on what they are, not on what they were.
with given as (
    select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::float8[], $10::int[], $11::int[], $12::int[], $13::text[], $14::text[])
        as given (id, attempt, claim, free, gated, cancelling, result, error, delay, failures, crashes, isolation, reason,
                  logs)
),
locked as (
    select given.*, found.status as previous, found.worker_id, found.started_at, found.held_gated,
           case when found.status = 'CANCELLING' then given.cancelling
                when found.held_gated then given.gated else given.free end as status
    from given cross join lateral (
        select tasks.status::text as status, tasks.worker_id, tasks.started_at,
               tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated
        from tasks left join queues on queues.name = tasks.queue
        where tasks.id = given.id and tasks.attempt = given.attempt and tasks.claim = given.claim
          and (tasks.status::text = 'CANCELLING' or tasks.status::text = 'IN_PROGRESS' and given.free is not null)
        for update of tasks skip locked
    ) as found
),
moved as (
    update tasks
    set status = locked.status::task_status,
        seq = case when locked.status = 'QUEUED' then nextval('task_seq') else tasks.seq end,
        -- Not while it waits for a time: promote_due.sql marks the task when it is due (submit.sql says why). What is
        -- returned as `gated` below stays true: by it the gate hears at once of the permit that this task has freed.
        gated = case when locked.status = 'PENDING' and locked.delay > 0 then false
                     when locked.status in ('QUEUED', 'PENDING') then locked.held_gated else tasks.gated end,
        permit = false,
        claim = null,
        worker_id = case when locked.status in ('QUEUED', 'PENDING') then null else tasks.worker_id end,
        scheduled_at = case when locked.status = 'PENDING' and locked.delay > 0
                            then clock_timestamp() + make_interval(secs => locked.delay) else tasks.scheduled_at end,
        retry_count = tasks.retry_count + locked.failures,
        crash_count = tasks.crash_count + locked.crashes,
        isolation = locked.isolation,
        cancel_deadline = null,
        result = case when locked.status = 'COMPLETED' then locked.result::json end,
        error = case when locked.status = 'COMPLETED' then null else coalesce(locked.error::json, tasks.error) end,
        finished_at = case when locked.status in ('COMPLETED', 'FAILED', 'CANCELLED', 'QUARANTINED')
                           then clock_timestamp() end,
        updated_at = clock_timestamp()
    from locked
    where tasks.id = any (array[locked.id])
    returning tasks.id, tasks.status::text as status, locked.previous, tasks.queue, tasks.owner_id,
              tasks.concurrency_key, locked.held_gated as gated, tasks.priority::text as priority, tasks.type,
              tasks.attempt, locked.worker_id, locked.claim, locked.started_at, locked.reason, locked.error, locked.logs
),
told as (
    insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at, cause, error, message)
    select id, (case when reason = 'released' or reason = 'suspect' or reason = 'forgotten' then
                     case when status = 'CANCELLED' then 'CANCELLED' else 'RELEASED' end
                when status in ('PENDING', 'QUEUED') then 'RETRIED' else status end)::event_type,
           attempt, claim, worker_id, started_at, reason, error::json,
           case when previous = 'CANCELLING' and status = 'COMPLETED' then 'cancel_too_late' end
    from moved
),
logged as (
    insert into task_logs (task_id, attempt, text) select id, attempt, logs from moved where logs <> ''
)
select id, status, previous, queue, owner_id, concurrency_key, gated, priority, type, attempt, worker_id from moved
