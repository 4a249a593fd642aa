-- Delete ended tasks beyond their queue's retention, with their logs, in batches of ids. $1 limit
with old as (
    select tasks.id
    from tasks left join queues on queues.name = tasks.queue
    where tasks.finished_at is not null
      and tasks.finished_at < clock_timestamp() - make_interval(secs =>
          case when tasks.status::text = 'COMPLETED' then coalesce(queues.completed_seconds, 604800)
               else coalesce(queues.failed_seconds, 2592000) end)
    order by tasks.finished_at
    limit $1
    for update of tasks skip locked
),
silenced as (delete from task_logs using old where task_logs.task_id = old.id)
delete from tasks using old where tasks.id = old.id returning tasks.id
