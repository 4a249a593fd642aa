-- Tasks that were asked to stop and did not within their grace become CANCELLED; a late outcome is fenced. $1 limit
select id from tasks
where status in ('IN_PROGRESS', 'CANCELLING') and status::text = 'CANCELLING' and cancel_deadline <= clock_timestamp()
order by id limit $1
