-- Tasks that were asked to stop and did not within their grace become CANCELLED; a late outcome is fenced. $1 limit
-- They are locked here and moved in the next statement, so that a grace that was granted in between is kept.
select id from tasks
where cancel_deadline <= statement_timestamp() and cancel_deadline is not null and status::text = 'CANCELLING'
order by cancel_deadline limit $1
for update skip locked
