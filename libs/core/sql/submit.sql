-- Insert tasks and their CREATED events, and with them the idempotency keys of the requests that have one: all in
-- one statement, so a key and its tasks commit together or not at all. One array per column, all of equal length.
-- $1 ids  $2 owners  $3 types  $4 queues  $5 priorities  $6 titles  $7 payloads (JSON)  $8 scheduled_at
-- $9 expires_at  $10 timeouts (s)  $11 max_attempts  $12 concurrency keys
-- $13 idempotency keys, null for none; the tasks of one request share theirs  $14 hashes of the requests' bodies
-- A task that may run at once is born QUEUED, with its place in the order; `born` is the one rule for it. Tasks whose
-- key was used before are left out. Keys are taken in order, so that two flushes cannot deadlock.
-- A task that waits for a time is not `gated` yet, whatever its key and its queue say: promote_due.sql watches the time
-- and marks the task when it is due. The gate looks at all its keys only now and then, and watches no time.
with moment as materialized (
    select clock_timestamp() as now
),
given as (
    select given.*, moment.now, coalesce(given.scheduled_at, moment.now) as due_at,
           given.concurrency_key <> '' or coalesce(queues.max_concurrent, 0) > 0 as gated
    from moment
    cross join unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                      $8::timestamptz[], $9::timestamptz[], $10::float8[], $11::int[], $12::text[], $13::text[],
                      $14::bytea[]) with ordinality
         as given (id, owner_id, type, queue, priority, title, payload, scheduled_at, expires_at, timeout_seconds,
                   max_attempts, concurrency_key, request_key, body_hash, place)
    left join queues on queues.name = given.queue
),
born as materialized (
    select given.*, case when not given.gated and due_at <= now then 'QUEUED' else 'PENDING' end as status
    from given
    order by place
),
taken as (
    insert into idempotency_keys (owner_id, key, body_hash, answer, created_at)
    select owner_id, request_key, (array_agg(body_hash))[1],
           json_agg(json_build_object('id', id, 'status', status, 'created_at', now, 'gated', gated) order by place),
           max(now)
    from born
    where request_key is not null
    group by owner_id, request_key
    order by owner_id, request_key
    on conflict do nothing
    returning owner_id, key
),
inserted as (
    insert into tasks (id, seq, owner_id, type, queue, priority, title, payload, payload_bytes, status, gated,
                       concurrency_key, scheduled_at, expires_at, timeout_seconds, max_attempts, created_at, updated_at)
    select id, case when status = 'QUEUED' then nextval('task_seq') end, owner_id, type, queue,
           priority::priority_type, title, payload::json, octet_length(payload), status::task_status,
           gated and due_at <= now, concurrency_key, due_at, expires_at, timeout_seconds, max_attempts, now, now
    from born
    where request_key is null or (owner_id, request_key) in (select owner_id, key from taken)
    -- Not the column: by what is returned the submitter tells the gate. No join to `born`, which costs a pass a row.
    returning id, status::text as status, created_at,
              case when gated or concurrency_key <> '' then true
                   when status = 'QUEUED' then false
                   else exists (select from queues where queues.name = tasks.queue and queues.max_concurrent > 0)
              end as gated
),
told as (
    insert into task_events (task_id, event_type, created_at) select id, 'CREATED', created_at from inserted
)
select id, status, created_at, gated from inserted
