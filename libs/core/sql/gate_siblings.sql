-- The keys of capped queues that have a gated task waiting, by a skip scan: at most $4 after the key that is given, and
-- as many from the beginning. One row of the arrays per queue. $1 queues  $2 owners  $3 keys
with recursive places as (
    select queue, owner_id, key from unnest($1::text[], $2::bigint[], $3::text[]) as given (queue, owner_id, key)
    union all
    select queue, -1, '' from unnest($1::text[]) as given (queue)
),
keys as (
    select first.queue, first.owner_id, first.concurrency_key, 1 as place
    from places cross join lateral (
        select tasks.queue, tasks.owner_id, tasks.concurrency_key
        from tasks
        where tasks.status = 'PENDING' and tasks.gated and tasks.queue = places.queue
          and (tasks.owner_id, tasks.concurrency_key) > (places.owner_id, places.key)
        order by tasks.owner_id, tasks.concurrency_key
        limit 1
    ) as first
    union all
    select next.queue, next.owner_id, next.concurrency_key, keys.place + 1
    from keys cross join lateral (
        select tasks.queue, tasks.owner_id, tasks.concurrency_key
        from tasks
        where tasks.status = 'PENDING' and tasks.gated and tasks.queue = keys.queue
          and (tasks.owner_id, tasks.concurrency_key) > (keys.owner_id, keys.concurrency_key)
        order by tasks.owner_id, tasks.concurrency_key
        limit 1
    ) as next
    where keys.place < $4
)
select distinct queue, owner_id, concurrency_key as key from keys
