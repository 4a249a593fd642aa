-- How many child processes a worker of a queue shall have, null when nobody said. $1 queue
select concurrency from queues where name = $1
