-- Set a queue's caps under the gate's lock and bring its rows under them, as regate.sql does: how many rows, or null when
-- there is no such queue. $1 queue  $2 most rows  $3 max_concurrent  $4 max_per_key
-- A function of migration 0008, in plpgsql and volatile: each of its statements has a snapshot of its own, taken after
-- the lock. One SQL statement would count with the snapshot from before its wait, without what the last holder of the
-- lock has committed.
select taskflow_set_limits($1, $2, $3, $4)
