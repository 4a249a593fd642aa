-- Write the progress of running attempts, under the fence. $1 ids  $2 attempts  $3 claims  $4 progress (JSON)
-- A locked row is skipped: progress is a hint for people, and the next one says more.
with told as (
    select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[]) as told (id, attempt, claim, progress)
),
locked as (
    select told.id, told.progress
    from told cross join lateral (
        select from tasks
        where tasks.id = told.id and tasks.attempt = told.attempt and tasks.claim = told.claim
          and tasks.status::text in ('IN_PROGRESS', 'CANCELLING')
        for no key update of tasks skip locked
    ) as found
)
update tasks set progress = locked.progress::json
from locked
where tasks.id = any (array[locked.id])
