-- Move a worker on: alive or cordoned to draining, anything to dead; dead is one-way. $1 id  $2 state  $3 its secret
update workers set state = $2 where id = $1 and state <> 'dead' and secret_hash = sha256(uuid_send($3)) returning state
