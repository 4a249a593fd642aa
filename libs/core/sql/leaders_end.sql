-- End the sessions of former leaders: one that was paused inside a transaction holds the leader lock, and one that does
-- not read its socket is freed by nothing else (reliability.md, row 6). Sessions of other databases are not ours.
-- $1 how their application_name begins
select pg_terminate_backend(pid) as ended, application_name as name
from pg_stat_activity
where datname = current_database() and starts_with(application_name, $1) and pid <> pg_backend_pid()
