-- Whether a session of this kind is still there: as long as it is, what was sent through it may still be carried out.
-- $1 the process id of its server process
select exists (
    select from pg_stat_activity where pid = $1 and application_name = current_setting('application_name')
)
