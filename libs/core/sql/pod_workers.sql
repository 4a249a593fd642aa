-- The workers that are not dead and said which pod they live in, with how many attempts each holds.
select workers.id as worker, coalesce(workers.facts ->> 'pod', '') as pod, workers.facts ->> 'pod_uid' as pod_uid,
       coalesce(workers.facts ->> 'namespace', '') as namespace, workers.queues, workers.state, held.running::int,
       extract(epoch from clock_timestamp() - workers.beat_at)::float8 as beat_age, workers.created_at
from workers
cross join lateral (
    select count(*) as running from tasks
    where tasks.worker_id = workers.id and tasks.status in ('IN_PROGRESS', 'CANCELLING')
) as held
where workers.state <> 'dead' and workers.facts ->> 'pod_uid' <> ''
order by workers.created_at, workers.id
