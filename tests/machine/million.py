"""A million tasks, as a busy system has them: history, a backlog, gated and delayed ones, and what runs."""

MILLION = """
insert into queues (name, max_concurrent) select 'q' || n, case n when 1 then 100 when 2 then 1000000 else 0 end
from generate_series(0, 19) as n;
insert into workers (id, name, state, queues, sync_types, async_types, sync_slots, async_slots,
                     secret_hash)
select lpad(to_hex(n), 32, '0')::uuid, 'w' || n, case when n % 40 = 0 then 'dead' else 'alive' end, '{q0}', '{t0}',
       '{}', 4, 0, sha256(uuid_send('00000000-0000-0000-0000-0000000005ec'))
from generate_series(1, 200) as n;
insert into tasks (id, seq, owner_id, type, queue, priority, payload, payload_bytes, status, gated, permit,
                   concurrency_key, scheduled_at, expires_at, attempt, claim, worker_id, started_at, finished_at,
                   cancel_deadline, timeout_seconds)
select lpad(to_hex(n), 32, '0')::uuid, n, n % 50, 't' || n % 7, 'q' || n / 100 % 20,
       (array['LOW', 'NORMAL', 'HIGH'])[1 + n % 3]::priority_type, '{}', 2, drawn.status::task_status, drawn.gated,
       drawn.gated and drawn.status in ('QUEUED', 'IN_PROGRESS', 'CANCELLING'),
       case when drawn.gated then 'k' || n % 1000 else '' end,
       now() + make_interval(secs => n % 20000 - 10000),
       case when n % 11 = 0 then now() + make_interval(secs => n % 20000 - 200) end,
       1, case when drawn.status in ('IN_PROGRESS', 'CANCELLING') then lpad(to_hex(n), 32, 'c')::uuid end,
       case when drawn.status in ('IN_PROGRESS', 'CANCELLING') then lpad(to_hex(1 + n / 100 % 200), 32, '0')::uuid end,
       now() - make_interval(secs => n % 1000),
       case when drawn.status in ('COMPLETED', 'FAILED') then now() - make_interval(secs => 900000 - n % 900000) end,
       case when drawn.status = 'CANCELLING' then now() end,
       case when n % 5 = 0 then 60 end
from generate_series(1, 1000000) as n
cross join lateral (select n % 100 between 92 and 98 as gated,
    case when n % 100 < 75 then 'COMPLETED' when n % 100 < 78 then 'FAILED' when n % 100 < 88 then 'QUEUED'
         when n % 100 < 98 then 'PENDING' when n % 2000 = 98 then 'CANCELLING' else 'IN_PROGRESS' end as status)
    as drawn
"""

# What ANALYZE found in another life of the table: two thousand ended tasks of one owner in one queue.
STRANGER = """
create table stranger (like tasks including all);
insert into stranger (id, owner_id, type, queue, payload, payload_bytes, status, finished_at)
select gen_random_uuid(), 1, 'old', 'old', '{}', 2, 'COMPLETED', now() - interval '60 days'
from generate_series(1, 2000);
analyze stranger;
update pg_statistic set starelid = 'tasks'::regclass where starelid = 'stranger'::regclass;
update pg_class set reltuples = 2000, relpages = 50 where oid = 'tasks'::regclass;
drop table stranger
"""

NO_STATISTICS = "update pg_class set reltuples = -1, relpages = 0 where oid = 'tasks'::regclass"
EMPTY = "alter table tasks set (autovacuum_enabled = off); alter table tasks set unlogged; analyze"
