-- How far the order of starting has come, which transactions were under way then, and how much has happened at all.
select task_seq.last_value as last, task_event_seq.last_value as events, pg_snapshot_xmin(moment.now)::text::bigint as oldest,
       pg_snapshot_xmax(moment.now)::text::bigint as next
from task_seq, task_event_seq, (select pg_current_snapshot() as now) as moment
