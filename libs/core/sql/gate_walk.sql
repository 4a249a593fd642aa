-- The next keys that have a gated task waiting, by a skip scan: one index descent a key, however many tasks it has.
-- $1 queue, $2 owner, $3 key after which to go on  $4 limit
with recursive keys as (
    (select queue, owner_id, concurrency_key, 1 as place
     from tasks
     where status = 'PENDING' and gated and (queue, owner_id, concurrency_key) > ($1::text, $2::bigint, $3::text)
     order by queue, owner_id, concurrency_key
     limit 1)
    union all
    select next.queue, next.owner_id, next.concurrency_key, keys.place + 1
    from keys cross join lateral (
        select tasks.queue, tasks.owner_id, tasks.concurrency_key
        from tasks
        where tasks.status = 'PENDING' and tasks.gated
          and (tasks.queue, tasks.owner_id, tasks.concurrency_key) > (keys.queue, keys.owner_id, keys.concurrency_key)
        order by tasks.queue, tasks.owner_id, tasks.concurrency_key
        limit 1
    ) as next
    where keys.place < $4
)
select queue, owner_id, concurrency_key from keys
