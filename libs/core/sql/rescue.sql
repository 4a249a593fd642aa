-- Take tasks back from workers that are dead or gone. Level-triggered: whatever happened before, a row that is held
-- by a dead worker is found here.
-- $1 limit  $2 uncharged worker deaths  $3 crashes that quarantine  $4 back-off (s) by number of deaths
-- $5 where a ready task goes when gated
with orphans as (
    select tasks.id
    from tasks left join workers on workers.id = tasks.worker_id
    where tasks.status in ('IN_PROGRESS', 'CANCELLING') and coalesce(workers.state, 'dead') = 'dead'
    order by tasks.id
    limit $1
    for update of tasks skip locked
),
judged as (
    select tasks.id, tasks.status::text as previous, tasks.claim as lost_claim, tasks.worker_id as lost_worker,
           tasks.started_at as lost_start,
           tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated,
           (tasks.worker_deaths >= $2)::int as charged,
           ($4::float8[])[least(tasks.worker_deaths + tasks.crash_count + 1, cardinality($4::float8[]))] as delay,
           tasks.crash_count
    from orphans join tasks on tasks.id = orphans.id
    left join queues on queues.name = tasks.queue
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
        gated = case when decided.target in ('QUEUED', 'PENDING') then decided.held_gated else tasks.gated end,
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
    where tasks.id = decided.id
    returning tasks.id, tasks.status::text as status, decided.previous, tasks.queue, tasks.owner_id,
              tasks.concurrency_key, decided.held_gated as gated, tasks.priority::text as priority, tasks.type,
              tasks.attempt, decided.lost_worker as worker_id, decided.lost_claim, decided.lost_start
),
told as (
    insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at, cause)
    select id, (case when status in ('QUEUED', 'PENDING') then 'RESCUED' else status end)::event_type, attempt,
           lost_claim, worker_id, lost_start, 'worker_lost'
    from moved
)
select id, status, previous, queue, owner_id, concurrency_key, gated, priority, type, attempt, worker_id from moved
