-- Turn workers from one state into another, and tell each that its next beat has news. $1 ids  $2 from  $3 to
-- Locked in id order: two who turn the same workers then wait for each other instead of failing. `for update`, because
-- that is what the key share of a claim conflicts with: it waits for claims that are under way, and later ones wait for it.
with locked as (
    select id from workers where id = any ($1::uuid[]) and state = $2 order by id for update
),
turned as (
    update workers set state = $3 from locked where workers.id = any (array[locked.id]) returning workers.id
)
select id, pg_notify('taskflow_worker_' || replace(id::text, '-', ''), '') from turned
