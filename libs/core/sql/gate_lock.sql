-- The gate's exclusive lock, held to the end of the transaction: of two who believe to lead, one counts at a time.
select pg_advisory_xact_lock($1, $2)
