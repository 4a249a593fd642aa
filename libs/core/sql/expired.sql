-- Waiting tasks whose `expires_at` has passed. $1 limit
select id from tasks
where expires_at <= clock_timestamp() and expires_at is not null and status in ('BLOCKED', 'PENDING', 'QUEUED')
order by expires_at limit $1
