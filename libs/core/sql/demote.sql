-- QUEUED rows that must not run now go back to PENDING: of a paused queue, of types that nobody announces, or gated
-- ones without a permit (the cap was set after they were queued). Nothing unrunnable then holds a permit.
-- $1 limit  $2 announced types  $3 demote unannounced types, too
with misplaced as (
    select tasks.id
    from tasks left join queues on queues.name = tasks.queue
    where tasks.status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING') and tasks.gated and tasks.status::text = 'QUEUED'
      and (not tasks.permit or coalesce(queues.paused, false) or ($3 and not tasks.type = any ($2::text[])))
    limit $1
    for update of tasks skip locked
)
update tasks
set status = 'PENDING', permit = false, updated_at = clock_timestamp()
from misplaced
where tasks.id = any (array[misplaced.id])
returning tasks.id, tasks.status::text as status, 'QUEUED' as previous, tasks.queue, tasks.owner_id,
          tasks.concurrency_key, tasks.gated, tasks.priority::text as priority, tasks.type, tasks.attempt,
          tasks.worker_id
