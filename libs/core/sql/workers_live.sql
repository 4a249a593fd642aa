-- Every worker that is not dead.
select id, name, state, beat_seq, queues, sync_types, async_types, sync_slots, async_slots, free_sync, free_async,
       build, pid, extract(epoch from clock_timestamp() - beat_at)::float8 as beat_age, created_at
from workers where state <> 'dead'
