-- Move waiting or ended tasks by a cause: cancel, redrive, expiry. Rows are locked first, in id order, so that the
-- edge taken is that of the status they have then.
-- $1 ids  $2 sources  $3 targets  $4 targets when gated  $5 owner or null for anyone  $6 event type
-- $7 cause  $8 message  $9 grace (s) for CANCELLING  $10 counters start anew
with edge as (
    select * from unnest($2::text[], $3::text[], $4::text[]) as edge (source, free, gated)
),
locked as (
    select found.*, case when found.held_gated then edge.gated else edge.free end as target
    from (select distinct unnest($1::uuid[]) as id order by 1) as wanted
    cross join lateral (
        select tasks.id, tasks.status::text as previous, tasks.worker_id, tasks.claim, tasks.started_at,
               tasks.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as held_gated
        from tasks left join queues on queues.name = tasks.queue
        where tasks.id = wanted.id and ($5::bigint is null or tasks.owner_id = $5)
        for update of tasks
    ) as found
    cross join edge
    where edge.source = found.previous
),
moved as (
    update tasks
    set status = locked.target::task_status,
        seq = case when locked.target = 'QUEUED' then nextval('task_seq') else tasks.seq end,
        gated = case when locked.target in ('QUEUED', 'PENDING') then locked.held_gated else tasks.gated end,
        permit = case when locked.target = 'CANCELLING' then tasks.permit else false end,
        claim = case when locked.target = 'CANCELLING' then tasks.claim end,
        cancel_deadline = case when locked.target = 'CANCELLING'
                               then clock_timestamp() + make_interval(secs => $9::float8) end,
        scheduled_at = case when locked.target in ('QUEUED', 'PENDING') then clock_timestamp()
                            else tasks.scheduled_at end,
        expires_at = case when $10 then null else tasks.expires_at end,
        retry_count = case when $10 then 0 else tasks.retry_count end,
        crash_count = case when $10 then 0 else tasks.crash_count end,
        worker_deaths = case when $10 then 0 else tasks.worker_deaths end,
        isolation = case when $10 then 0 else tasks.isolation end,
        generation = tasks.generation + case when $10 then 1 else 0 end,
        error = case when $10 then null else tasks.error end,
        worker_id = case when locked.target in ('QUEUED', 'PENDING') then null else tasks.worker_id end,
        finished_at = case when locked.target in ('CANCELLED', 'EXPIRED') then clock_timestamp() end,
        updated_at = clock_timestamp()
    from locked
    where tasks.id = any (array[locked.id])
    returning tasks.id, tasks.status::text as status, locked.previous, tasks.queue, tasks.owner_id,
              tasks.concurrency_key, locked.held_gated as gated, tasks.priority::text as priority, tasks.type,
              tasks.attempt, locked.worker_id, locked.claim, locked.started_at
),
told as (
    insert into task_events (task_id, event_type, attempt, claim, worker_id, started_at, cause, message)
    select id, (case when status = 'CANCELLING' then 'CANCEL_REQUESTED' else $6 end)::event_type, attempt, claim,
           worker_id, started_at, $7, $8
    from moved
)
select id, status, previous, queue, owner_id, concurrency_key, gated, priority, type, attempt, worker_id from moved
