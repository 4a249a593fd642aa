-- Where the next slice of a verification ends: at the last of so many tasks or events, whichever comes first. Null is
-- that there are fewer. $1 after this id  $2 tasks  $3 events
-- Events of deleted tasks count too. A task and all its events are in one slice.
select least(
    (select id from tasks where id > $1 order by id offset $2 limit 1),
    (select task_id from task_events where task_id > $1 order by task_id offset $3 limit 1)
) as id
