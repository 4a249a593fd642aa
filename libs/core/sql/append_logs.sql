-- Keep what running attempts wrote, under the fence. $1 ids  $2 attempts  $3 texts  $4 claims
insert into task_logs (task_id, attempt, text)
select told.id, told.attempt, told.text
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[]) as told (id, attempt, text, claim)
join tasks on tasks.id = any (array[told.id]) and tasks.attempt = told.attempt and tasks.claim = told.claim
where tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
