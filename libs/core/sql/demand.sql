-- What queues ask of their workers: the depth by which the operator sets their number. $1 queues, or null for all
-- $2 where counting stops
-- Every count is a range of one partial index that begins with the queue, cut off by a LIMIT, so that neither
-- statistics nor a flood of tasks that nobody can run decide what this costs. Types that are not known are counted in
-- the gaps between the known ones.
-- `type <> ''` is always true, and is what the index of gated tasks by type asks for.
-- Gated tasks that are due wait for the gate, and the gate waits for a worker: with none, what the caps would let
-- through has to be counted here, or nobody would ever start one.
with recursive announced as materialized (
    select served.queue, array_agg(distinct kinds.name order by kinds.name) as types
    from workers
    cross join lateral unnest(workers.queues) as served (queue)
    cross join lateral unnest(workers.sync_types || workers.async_types) as kinds (name)
    where workers.state <> 'dead'
    group by served.queue
),
known as materialized (
    -- Null types: nobody has ever served this queue, so every type may be meant.
    select queues.name, queues.paused, queues.max_concurrent, queues.max_per_key,
           coalesce(announced.types, queue_types.types) as types, queue_types.announced_at, queue_types.template
    from queues
    left join announced on announced.queue = queues.name
    left join queue_types on queue_types.queue = queues.name
    where $1::text[] is null or queues.name = any ($1)
),
gaps as materialized (
    select known.name, bound.type as low,
           lead(bound.type) over (partition by known.name order by bound.type) as high
    from known cross join lateral unnest(array[''] || known.types) as bound (type)
    where known.types is not null
),
running as materialized (
    select queue, count(*) as number from tasks where status in ('IN_PROGRESS', 'CANCELLING') group by queue
),
heads as (
    -- The oldest of each (type, priority): by a skip scan where every type is known, else by name.
    select known.name, head.type, head.priority, head.updated_at, 1 as place
    from known cross join lateral (
        select type, priority, updated_at from tasks where status = 'QUEUED' and queue = known.name
        order by type, priority, seq limit 1
    ) as head
    where known.types is null
    union all
    select heads.name, next.type, next.priority, next.updated_at, heads.place + 1
    from heads cross join lateral (
        select tasks.type, tasks.priority, tasks.updated_at from tasks
        where tasks.status = 'QUEUED' and tasks.queue = heads.name
          and (tasks.type, tasks.priority) > (heads.type, heads.priority)
        order by tasks.type, tasks.priority, tasks.seq limit 1
    ) as next
    where heads.place < 1000
),
oldest as materialized (
    select name, min(since) as since
    from (
        select name, updated_at as since from heads
        union all
        select known.name, head.updated_at
        from known
        cross join lateral unnest(known.types) as kinds (name)
        cross join unnest(enum_range(null::priority_type)) as priorities (name)
        left join ready_floors as floors
            on floors.queue = known.name and floors.type = kinds.name and floors.priority = priorities.name
        cross join lateral (
            select updated_at from tasks
            where status = 'QUEUED' and queue = known.name and type = kinds.name and priority = priorities.name
              and seq > coalesce(floors.seq, 0)
            order by seq limit 1
        ) as head
    ) as found
    group by name
),
counted as (
    select known.*, waiting.pending, ready.queued, gate.passing, gate.since as passing_since, strange.unknown,
           strange.unknown_types, strange.since as unknown_since, ended.failed, ended.finished_minute,
           took.run_seconds, coalesce(running.number, 0) as running, oldest.since
    from known
    left join running on running.queue = known.name
    left join oldest on oldest.name = known.name
    cross join lateral (
        select (select count(*) from (select from tasks where status = 'PENDING' and not gated
                                      and queue = known.name limit $2) as delayed)
             + (select count(*) from (select from tasks where status = 'PENDING' and gated
                                      and queue = known.name limit $2) as held) as pending
    ) as waiting
    cross join lateral (
        select count(*) as queued from (
            (select from unnest(known.types) as kinds (name)
             cross join unnest(enum_range(null::priority_type)) as priorities (name)
             left join ready_floors as floors
                 on floors.queue = known.name and floors.type = kinds.name and floors.priority = priorities.name
             cross join lateral (
                select from tasks
                where status = 'QUEUED' and queue = known.name and type = kinds.name and priority = priorities.name
                  and seq > coalesce(floors.seq, 0)
                limit $2
             ) as one)
            union all
            (select from tasks where known.types is null and status = 'QUEUED' and queue = known.name limit $2)
            limit $2
        ) as found
    ) as ready
    cross join lateral (
        -- Of each key as many as its cap has room for, and of all keys as many as the queue has.
        select case when known.max_concurrent = 0 then coalesce(sum(keys.passing), 0)
                    else least(coalesce(sum(keys.passing), 0), greatest(known.max_concurrent - (
                        select count(*) from (select from tasks
                                              where gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
                                                and queue = known.name limit known.max_concurrent) as active), 0))
               end as passing,
               min(keys.since) filter (where keys.passing > 0) as since
        from (
            select due.since, case
                when due.concurrency_key = '' or known.max_per_key = 0 then due.number
                else least(due.number, greatest(known.max_per_key - (
                    select count(*) from (select from tasks
                                          where gated and status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING')
                                            and queue = known.name and owner_id = due.owner_id
                                            and concurrency_key = due.concurrency_key
                                          limit known.max_per_key) as active), 0)) end as passing
            from (
                select owner_id, concurrency_key, count(*) as number, min(scheduled_at) as since from (
                    (select one.* from unnest(known.types) as kinds (name) cross join lateral (
                        select owner_id, concurrency_key, scheduled_at from tasks
                        where status = 'PENDING' and gated and type <> '' and queue = known.name and type = kinds.name
                          and scheduled_at <= statement_timestamp()
                        limit $2
                     ) as one)
                    union all
                    (select owner_id, concurrency_key, scheduled_at from tasks
                     where known.types is null and status = 'PENDING' and gated and type <> '' and queue = known.name
                       and scheduled_at <= statement_timestamp()
                     limit $2)
                    limit $2
                ) as found
                group by owner_id, concurrency_key
            ) as due
        ) as keys
    ) as gate
    cross join lateral (
        select count(*) as unknown,
               coalesce((array_agg(distinct type order by type))[1:5], '{}') as unknown_types, min(since) as since
        from (
            (select one.type, one.since from gaps cross join lateral (
                select type, updated_at as since from tasks
                where status = 'QUEUED' and queue = known.name and type > gaps.low and type < gaps.high
                limit $2) as one
             where gaps.name = known.name and gaps.high is not null)
            union all
            (select one.type, one.since from gaps cross join lateral (
                select type, updated_at as since from tasks
                where status = 'QUEUED' and queue = known.name and type > gaps.low
                limit $2) as one
             where gaps.name = known.name and gaps.high is null)
            union all
            (select one.type, one.since from gaps cross join lateral (
                select type, scheduled_at as since from tasks
                where status = 'PENDING' and gated and type <> '' and queue = known.name and type > gaps.low
                  and type < gaps.high and scheduled_at <= statement_timestamp()
                limit $2) as one
             where gaps.name = known.name and gaps.high is not null)
            union all
            (select one.type, one.since from gaps cross join lateral (
                select type, scheduled_at as since from tasks
                where status = 'PENDING' and gated and type <> '' and queue = known.name and type > gaps.low
                  and scheduled_at <= statement_timestamp()
                limit $2) as one
             where gaps.name = known.name and gaps.high is null)
            limit $2
        ) as found
    ) as strange
    cross join lateral (
        select (select count(*) from (select from tasks where finished_at > statement_timestamp() - interval '1 hour'
                                      and status in ('FAILED', 'QUARANTINED') and queue = known.name limit $2) as f)
                   as failed,
               (select count(*) from (select from tasks
                                      where finished_at > statement_timestamp() - interval '1 minute'
                                        and status = 'COMPLETED' and queue = known.name limit $2) as f)
             + (select count(*) from (select from tasks
                                      where finished_at > statement_timestamp() - interval '1 minute'
                                        and status in ('FAILED', 'CANCELLED', 'EXPIRED', 'QUARANTINED')
                                        and queue = known.name limit $2) as f) as finished_minute
    ) as ended
    cross join lateral (
        -- Cut at the 95th percentile: one task that hung for a day says nothing about the next one.
        select avg(least(runs.seconds, most.seconds)) as run_seconds
        from (
            select percentile_cont(0.95) within group (order by last.seconds) as seconds,
                   array_agg(last.seconds) as all_seconds
            from (
                select extract(epoch from finished_at - started_at)::float8 as seconds from tasks
                where status = 'COMPLETED' and queue = known.name
                order by finished_at desc limit 200
            ) as last
        ) as most
        cross join lateral unnest(most.all_seconds) as runs (seconds)
    ) as took
)
select name as queue, paused, max_concurrent, least(pending, $2)::int as pending,
       least(queued + passing, $2)::int as queued, least(running, $2)::int as running, failed::int as failed,
       unknown::int as unknown, unknown_types,
       extract(epoch from clock_timestamp() - unknown_since)::float8 as unknown_seconds,
       extract(epoch from clock_timestamp() - announced_at)::float8 as announced_seconds,
       coalesce(template, '') as announced_template,
       greatest(pending, queued + passing, running, failed, unknown, finished_minute) >= $2 as capped,
       extract(epoch from clock_timestamp() - least(since, passing_since))::float8 as oldest_queued_seconds,
       least(finished_minute, $2)::int as finished_minute, run_seconds
from counted
order by name
