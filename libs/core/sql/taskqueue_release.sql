-- Forget which TaskQueue sets a queue, if it is that one. $1 queue  $2 uid
update queues set taskqueue = null where name = $1 and taskqueue ->> 'uid' = $2
