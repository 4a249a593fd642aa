-- The settings of every queue.
select name, paused, max_concurrent, max_per_key from queues
