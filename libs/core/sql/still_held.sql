-- Which attempts are still their holder's to end. It takes no lock, so it answers for a row that another transaction holds.
-- $1 ids  $2 attempts  $3 claims
select tasks.id, tasks.attempt, tasks.claim, tasks.status::text as status
from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as held (id, attempt, claim)
join tasks on tasks.id = any (array[held.id])
where tasks.attempt = held.attempt and tasks.claim = held.claim
  and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
