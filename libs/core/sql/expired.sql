-- Waiting tasks whose `expires_at` has passed. $1 limit
-- They are locked here and moved in the next statement: a task that was cancelled and given a new life in between
-- would otherwise be ended for a date that it has no more.
select id from tasks
where expires_at <= statement_timestamp() and expires_at is not null and status in ('BLOCKED', 'PENDING', 'QUEUED')
order by expires_at limit $1
for update skip locked
