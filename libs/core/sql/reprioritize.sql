-- Give waiting tasks another priority and a new place in its order. $1 ids  $2 priority  $3 owner or null  $4 message
with locked as (
    select tasks.id
    from tasks
    where tasks.id = any ($1::uuid[]) and ($3::bigint is null or tasks.owner_id = $3)
      and tasks.status::text in ('BLOCKED', 'PENDING', 'QUEUED')
    order by tasks.id
    for update
),
moved as (
    update tasks
    set priority = $2::text::priority_type,
        seq = case when tasks.status::text = 'QUEUED' then nextval('task_seq') else tasks.seq end,
        updated_at = clock_timestamp()
    from locked
    where tasks.id = any (array[locked.id])
    returning tasks.id, tasks.status::text as status, tasks.status::text as previous, tasks.queue, tasks.owner_id,
              tasks.concurrency_key, tasks.gated, tasks.priority::text as priority, tasks.type, tasks.attempt,
              tasks.worker_id
),
told as (
    insert into task_events (task_id, event_type, attempt, cause, message)
    select id, 'REPRIORITIZED', attempt, 'reprioritize', $4 from moved
)
select * from moved
