-- What contradicts the audit trail in a range of ids, and how many tasks and events there were (the row without an id).
-- $1 after this id  $2 up to this id  $3 days for which all events are kept
-- One statement, so that tasks and events are of the same moment. It locks nothing. Endings are counted by attempt and
-- claim. The end of a task is counted by attempt number: a task that ended is retried under the number that it had, and
-- can be cancelled under it again. So each end needs its own retry, except the last one.
-- Events go by whole days. Of an older task only that is judged which needs no event of the days before.
with recorded as materialized (
    select task_id, attempt, claim, worker_id, cause, event_type::text as kind, created_at, id
    from task_events
    where task_id > $1 and task_id <= $2
),
looked as materialized (
    select tasks.id, tasks.attempt, tasks.claim, tasks.worker_id, tasks.generation, tasks.permit, tasks.seq,
           tasks.cancel_deadline, tasks.created_at, tasks.started_at, tasks.finished_at, tasks.status::text as state,
           tasks.status in ('IN_PROGRESS', 'CANCELLING') as running,
           tasks.status in ('COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED') as ended,
           kept.since
    from tasks cross join (
        select (date_trunc('day', statement_timestamp() at time zone 'UTC') at time zone 'UTC')
               - make_interval(days => $3) as since
    ) as kept
    where tasks.id > $1 and tasks.id <= $2
),
attempts as materialized (
    select task_id, attempt, claim,
           count(*) filter (where kind = 'STARTED') as starts,
           count(*) filter (where kind <> 'STARTED') as ends,
           count(*) filter (where kind <> 'STARTED' and cause is null) as unexplained
    from recorded
    where claim is not null
      and kind in ('STARTED', 'COMPLETED', 'FAILED', 'RETRIED', 'RELEASED', 'RESCUED', 'CANCELLED', 'QUARANTINED')
    group by task_id, attempt, claim
),
numbers as materialized (
    select task_id, attempt,
           count(*) filter (where kind = 'STARTED') as starts,
           count(*) filter (where kind = 'REDRIVEN') as retries,
           count(*) filter (where kind in ('COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED')) as ends
    from recorded
    where attempt is not null
    group by task_id, attempt
),
trails as materialized (
    select task_id, count(*) filter (where kind = 'CREATED') as created,
           count(*) filter (where kind = 'REDRIVEN') as retries,
           count(*) filter (where kind = 'STARTED') as starts,
           coalesce(max(attempt) filter (where kind = 'STARTED'), 0) as last_start
    from recorded
    group by task_id
),
finals as materialized (
    select distinct on (recorded.task_id, recorded.attempt) recorded.task_id, recorded.attempt, recorded.kind,
           recorded.worker_id
    from recorded
    where recorded.kind in ('COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED')
    order by recorded.task_id, recorded.attempt, recorded.created_at desc, recorded.id desc
),
contradictions as (
    select looked.id, format('the task is %s, its last event is %s', state, coalesce(finals.kind, 'not its end')) as what
    from looked left join finals on finals.task_id = looked.id and finals.attempt = looked.attempt
    where ended and finished_at >= since and finals.kind is distinct from state
    union all
    select looked.id, format('the task ended with worker %s, its last event with %s',
                             coalesce(looked.worker_id::text, 'none'), coalesce(finals.worker_id::text, 'none'))
    from looked join finals on finals.task_id = looked.id and finals.attempt = looked.attempt
    where ended and finals.kind = state and finals.worker_id is distinct from looked.worker_id
    union all
    select looked.id, format('attempt %s ended the task, and nobody retried it; it is %s in attempt %s',
                             numbers.attempt, state, looked.attempt)
    from looked join numbers on numbers.task_id = looked.id
    where numbers.ends > numbers.retries and not (ended and numbers.attempt = looked.attempt)
    union all
    select looked.id, format('the task is %s, but was retried after its last end', state)
    from looked join numbers on numbers.task_id = looked.id and numbers.attempt = looked.attempt
    where ended and created_at >= since and numbers.ends > 0 and numbers.ends <= numbers.retries
    union all
    select looked.id, format('the task is %s in attempt %s, and no event says that its worker started it',
                             state, looked.attempt)
    from looked left join attempts on attempts.task_id = looked.id and attempts.attempt = looked.attempt
                                  and attempts.claim = looked.claim
    where running and looked.started_at >= since and coalesce(attempts.starts, 0) = 0
    union all
    select looked.id, format('the task is in attempt %s, its events are in attempt %s', attempt, last_start)
    from looked join trails on trails.task_id = looked.id
    where last_start > attempt or (created_at >= since and (last_start < attempt or starts < attempt))
    union all
    select looked.id, 'no event says that the task was submitted'
    from looked left join trails on trails.task_id = looked.id
    where looked.created_at >= since and coalesce(trails.created, 0) = 0
    union all
    select looked.id, format('the task was retried %s times, its events say %s', generation, retries)
    from looked join trails on trails.task_id = looked.id
    where retries > generation or (looked.created_at >= since and retries < generation)
),
impossible as (
    select looked.id, format('the task is %s, and %s', looked.state, wrong.what) as what
    from looked
    left join workers on workers.id = looked.worker_id
    cross join lateral (values
        (running and workers.id is null and looked.worker_id is not null, 'its worker has no row'),
        (running and looked.claim is null, 'has no claim'),
        (running and looked.worker_id is null, 'has no worker'),
        (running and looked.started_at is null, 'has no start'),
        (looked.state = 'CANCELLING' and looked.cancel_deadline is null, 'nothing will end it'),
        (looked.state <> 'CANCELLING' and looked.cancel_deadline is not null, 'has a deadline to stop'),
        (not running and looked.claim is not null, 'has a claim'),
        (not running and not ended and looked.worker_id is not null, 'has a worker'),
        (looked.permit and not running and looked.state <> 'QUEUED', 'has a permit of its concurrency limit'),
        (looked.state = 'QUEUED' and looked.seq is null, 'has no place in the order'),
        (ended and looked.finished_at is null, 'has no time of its end'),
        (not ended and looked.finished_at is not null, 'has a time of its end')
    ) as wrong (found, what)
    where wrong.found
)
select id, kind, what, 0::bigint as tasks, 0::bigint as events
from (
    select id, 'contradiction' as kind, what from contradictions
    union all
    select task_id, 'two-endings', format('attempt %s under claim %s has %s endings', attempt, claim, ends)
    from attempts where ends > 1
    union all
    select task_id, 'two-endings', format('attempt %s ended the task %s times, and it was retried %s times', attempt,
                                          ends, retries)
    from numbers where ends > retries + 1
    union all
    select task_id, 'two-starts', format('attempt %s started %s times', attempt, starts) from numbers where starts > 1
    union all
    select attempts.task_id, 'no-ending', format('attempt %s under claim %s has no end', attempts.attempt, attempts.claim)
    from attempts left join looked on looked.id = attempts.task_id and looked.running
                                  and looked.attempt = attempts.attempt and looked.claim = attempts.claim
    where starts > 0 and ends = 0 and looked.id is null
    union all
    select attempts.task_id, 'no-start', format('attempt %s under claim %s ended and never started', attempts.attempt,
                                                attempts.claim)
    from attempts join looked on looked.id = attempts.task_id
    where starts = 0 and created_at >= since
    union all
    select task_id, 'no-reason', format('an end of attempt %s says no reason', attempt) from attempts
    where unexplained > 0
    union all
    select id, 'impossible', what from impossible
) as found
union all
select null, null, null, (select count(*) from looked), (select count(*) from recorded)
order by id, kind, what
