-- Which endings are recorded already, after an unknown commit or a resend.
-- $1 ids  $2 attempts  $3 claims  $4 the causes that a holder writes
select distinct ended.id, ended.attempt, ended.claim
from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as ended (id, attempt, claim)
join task_events on task_events.task_id = ended.id
where task_events.attempt = ended.attempt and task_events.claim = ended.claim
  and task_events.cause = any ($4::text[]) and task_events.event_type::text <> 'FENCED'
