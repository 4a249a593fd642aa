-- Give the leader's lock back if it is ours: compare-and-delete. KEYS: lock. ARGV: epoch, holder.
if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
