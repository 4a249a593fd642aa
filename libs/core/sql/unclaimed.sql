-- Say why references were not claimed. $1 ids  $2 types  $3 worker deaths that ask for a whole worker
select tasks.id, case
    when tasks.status::text <> 'QUEUED' then 'gone'
    when tasks.expires_at is not null and tasks.expires_at <= clock_timestamp() then 'gone'
    when not tasks.type = any ($2::text[]) or coalesce(queues.paused, false)
         or not (tasks.permit or (tasks.concurrency_key = '' and coalesce(queues.max_concurrent, 0) = 0)) then 'refused'
    when tasks.worker_deaths >= $3 then 'solo'
    else 'waiting' end as why
from tasks left join queues on queues.name = tasks.queue
where tasks.id = any ($1::uuid[])
