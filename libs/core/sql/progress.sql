-- Write the progress of running attempts, under the fence. $1 ids  $2 attempts  $3 claims  $4 progress (JSON)
update tasks set progress = told.progress::json
from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[]) as told (id, attempt, claim, progress)
where tasks.id = any (array[told.id]) and tasks.attempt = told.attempt and tasks.claim = told.claim
  and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
