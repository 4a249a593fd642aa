-- Take tasks back from workers that are dead or gone. Level-triggered: whatever happened before, a row that is held
-- by a dead worker is found here.
-- $1 limit  $2 uncharged worker deaths  $3 crashes that quarantine  $4 back-off (s) by number of deaths
-- $5 where a ready task goes when gated  $6 whether to look for holders that have no row, too
-- The lock re-checks that the row is still held by that very worker, whose death is one-way. Without it a row that
-- was rescued and claimed anew between our snapshot and our lock would be torn from a worker that lives. All that is
-- decided below is read under the lock: a cancel that came in between must not be undone.
with recursive holders as (
    -- A skip scan: one index descent a worker, however many tasks it runs. But under an open snapshot all that a worker
    -- has claimed since is still in its place, so this is not for every second.
    (select worker_id from tasks where $6 and status in ('IN_PROGRESS', 'CANCELLING') order by worker_id limit 1)
    union all
    select next.worker_id
    from holders cross join lateral (
        select tasks.worker_id from tasks
        where tasks.status in ('IN_PROGRESS', 'CANCELLING') and tasks.worker_id > holders.worker_id
        order by tasks.worker_id limit 1
    ) as next
),
lost as (
    select workers.id as worker_id from workers where workers.state = 'dead'
    union all
    select holders.worker_id
    from holders left join workers on workers.id = holders.worker_id
    where workers.id is null
),
orphans as (
    select found.id, lost.worker_id
    from lost cross join lateral (
        select tasks.id from tasks
        where tasks.worker_id = lost.worker_id and tasks.status in ('IN_PROGRESS', 'CANCELLING')
        limit $1
    ) as found
    limit $1
),
judged as (
    select found.*
    from (select * from orphans order by id) as orphans cross join lateral (
        select tasks.id, tasks.status::text as previous, tasks.claim as lost_claim, tasks.worker_id as lost_worker,
               tasks.started_at as lost_start,
               tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated,
               (tasks.worker_deaths >= $2)::int as charged,
               ($4::float8[])[least(tasks.worker_deaths + tasks.crash_count + 1, cardinality($4::float8[]))] as delay,
               tasks.crash_count
        from tasks left join queues on queues.name = tasks.queue
        where tasks.id = orphans.id and tasks.worker_id = orphans.worker_id
          and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
        for update of tasks skip locked
    ) as found
),
decided as (
    select judged.*, case
        when previous = 'CANCELLING' then 'CANCELLED'
        when crash_count + charged >= $3 and charged = 1 then 'QUARANTINED'
        when delay > 0 then 'PENDING'
        when held_gated then $5
        else 'QUEUED' end as target
    from judged
),
moved as (
    update tasks
    set status = decided.target::task_status,
        seq = case when decided.target = 'QUEUED' then nextval('task_seq') else tasks.seq end,
        -- Not while it waits for a time, as in finish.sql.
        gated = case when decided.target = 'PENDING' and decided.delay > 0 then false
                     when decided.target in ('QUEUED', 'PENDING') then decided.held_gated else tasks.gated end,
        permit = false, claim = null,
        worker_id = case when decided.target in ('QUEUED', 'PENDING') then null else tasks.worker_id end,
        worker_deaths = tasks.worker_deaths + 1 - decided.charged,
        crash_count = tasks.crash_count + decided.charged,
        scheduled_at = case when decided.target = 'PENDING'
                            then clock_timestamp() + make_interval(secs => decided.delay) else tasks.scheduled_at end,
        cancel_deadline = null,
        finished_at = case when decided.target in ('CANCELLED', 'QUARANTINED') then clock_timestamp() end,
        updated_at = clock_timestamp()
    from decided
    where tasks.id = any (array[decided.id])
    returning tasks.id, tasks.status::text as status, decided.previous, tasks.queue, tasks.owner_id,
              tasks.concurrency_key, decided.held_gated as gated, tasks.priority::text as priority, tasks.type,
              tasks.attempt, decided.lost_worker as worker_id, decided.lost_claim, decided.lost_start
),
told as (
    -- Why the worker died, when Kubernetes has said so already; later it is read from the worker's row.
    insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at, cause, message)
    select moved.id, (case when status in ('QUEUED', 'PENDING') then 'RESCUED' else status end)::event_type, attempt,
           lost_claim, worker_id, lost_start, 'worker_lost',
           nullif(concat_ws(': ', workers.death ->> 'reason', nullif(workers.death ->> 'message', '')), '')
    from moved left join workers on workers.id = moved.worker_id
)
select id, status, previous, queue, owner_id, concurrency_key, gated, priority, type, attempt, worker_id from moved
