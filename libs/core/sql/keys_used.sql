-- Note when keys were last used, at most once a minute each. $1 ids  $2 moments
-- SKIP LOCKED: another process notes the same key just now, and one of the two notes is enough.
with seen as (
    select api_keys.id, used.at
    from unnest($1::bigint[], $2::timestamptz[]) as used (id, at)
    cross join lateral (
        select keys.id from api_keys as keys
        where keys.id = used.id and (keys.last_used_at is null or keys.last_used_at < used.at - interval '1 minute')
        for update skip locked
    ) as api_keys
)
update api_keys set last_used_at = seen.at from seen where api_keys.id = seen.id
