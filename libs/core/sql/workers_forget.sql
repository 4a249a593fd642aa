-- Remove the rows of workers long dead that hold nothing. $1 age (s)  $2 limit
-- $3 age (s) of those with a cause of death, if that is more
with forgotten as materialized (
    select workers.id from workers
    where workers.state = 'dead' and workers.beat_at < statement_timestamp()
          - make_interval(secs => case when workers.death is null then $1::float8 else greatest($1, $3::float8) end)
      and (select count(*) from (select from tasks where tasks.worker_id = workers.id
                                 and tasks.status in ('IN_PROGRESS', 'CANCELLING') limit 1) as held) = 0
    limit $2
)
delete from workers using forgotten where workers.id = any (array[forgotten.id])
