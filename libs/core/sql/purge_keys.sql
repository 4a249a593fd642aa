-- Forget idempotency keys after 24 hours. $1 limit
delete from idempotency_keys where ctid in (
    select ctid from idempotency_keys where created_at < statement_timestamp() - interval '24 hours' limit $1)
