-- Declare a worker dead, if it has not beaten since `beat_seq` was read: compare-and-set. $1 id  $2 beat_seq
update workers set state = 'dead' where id = $1 and beat_seq = $2 and state <> 'dead' returning id
