-- Move a worker on: alive or cordoned to draining, anything to dead; dead is one-way. $1 id  $2 state
update workers set state = $2 where id = $1 and state <> 'dead' returning state
