-- Attempts that ran beyond their time limit by the database's clock; the leader confirms by its own.
-- $1 seconds of grace  $2 limit
select id, attempt, claim, timeout_seconds, max_attempts, retry_count
from tasks
where status in ('IN_PROGRESS', 'CANCELLING') and timeout_seconds is not null
  and started_at < statement_timestamp() - make_interval(secs => timeout_seconds + $1::float8)
order by started_at limit $2
