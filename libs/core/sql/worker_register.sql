-- Introduce a worker; a second call with the same id renews what it can run. A dead id stays dead.
-- $1 id  $2 name  $3 queues  $4 sync types  $5 async types  $6 sync slots  $7 async slots  $8 build  $9 pid  $10 facts
-- $11 its secret, made with the id: who does not know it can neither renew nor act for this worker  $12 which functions it calls
-- What it announces is kept for the time when its queues have no worker. The types count only when they are news: an
-- old build that announces the same types again must not overrule a newer one. When a worker registered last, and from
-- which pod template, is renewed every time: by these the operator knows whether a new type was tried.
with kinds as (
    select array(select distinct kind from unnest($4::text[] || $5::text[]) as said (kind) order by kind) as types
),
known as (
    select sync_types || async_types as types from workers where id = $1
),
registered as (
    insert into workers (id, name, queues, sync_types, async_types, sync_slots, async_slots, free_sync, free_async,
                         build, pid, facts, secret_hash, functions)
    values ($1, $2, $3, $4, $5, $6, $7, $6, $7, $8, $9, $10, sha256(uuid_send($11)), $12)
    on conflict (id) do update
    set queues = excluded.queues, sync_types = excluded.sync_types, async_types = excluded.async_types,
        sync_slots = excluded.sync_slots, async_slots = excluded.async_slots
    where workers.state <> 'dead' and workers.secret_hash = excluded.secret_hash
    returning state
),
told as (
    insert into queue_types as kept (queue, types, template)
    select served.queue, kinds.types, coalesce($10::jsonb ->> 'template', '')
    from registered, kinds, (select distinct unnest($3::text[]) as queue) as served
    where cardinality(kinds.types) > 0
    order by served.queue
    on conflict (queue) do update
    set types = case when exists (select from known where known.types = $4::text[] || $5::text[]) then kept.types
                     else excluded.types end,
        announced_at = clock_timestamp(), template = excluded.template
)
select state from registered
