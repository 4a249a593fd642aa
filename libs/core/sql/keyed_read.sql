-- The stored answers to keys that were used before. $1 owners  $2 keys
select idempotency_keys.owner_id, idempotency_keys.key, body_hash, answer::text as answer
from unnest($1::bigint[], $2::text[]) as given (owner_id, key)
join idempotency_keys on idempotency_keys.owner_id = given.owner_id and idempotency_keys.key = given.key
