-- Keep what handlers wrote. $1 ids  $2 attempts  $3 texts
insert into task_logs (task_id, attempt, text)
select * from unnest($1::uuid[], $2::bigint[], $3::text[])
