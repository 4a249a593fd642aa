-- Introduce a worker; a second call with the same id renews what it can run. A dead id stays dead.
-- $1 id  $2 name  $3 queues  $4 sync types  $5 async types  $6 sync slots  $7 async slots  $8 build  $9 pid  $10 facts
insert into workers (id, name, queues, sync_types, async_types, sync_slots, async_slots, free_sync, free_async, build,
                     pid, facts)
values ($1, $2, $3, $4, $5, $6, $7, $6, $7, $8, $9, $10)
on conflict (id) do update
set queues = excluded.queues, sync_types = excluded.sync_types, async_types = excluded.async_types,
    sync_slots = excluded.sync_slots, async_slots = excluded.async_slots
where workers.state <> 'dead'
returning state
