-- Note that an attempt's ending was refused. $1 ids  $2 attempts  $3 claims  $4 reasons
insert into task_events (task_id, event_type, attempt, claim, cause, message)
select id, 'FENCED', attempt, claim, reason, 'the attempt was no longer the holder of the task; its outcome was dropped'
from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[]) as fenced (id, attempt, claim, reason)
