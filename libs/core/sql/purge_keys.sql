-- Forget idempotency keys after 24 hours. $1 limit
delete from idempotency_keys using (
    select owner_id, key from idempotency_keys where created_at < statement_timestamp() - interval '24 hours' limit $1
) as old
where idempotency_keys.owner_id = old.owner_id and idempotency_keys.key = old.key
