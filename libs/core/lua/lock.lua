-- Take or renew the leader's lock: SET NX with a TTL, except that a higher epoch overwrites a lower one.
-- KEYS: lock. ARGV: epoch, holder, TTL in milliseconds. Answers "" when it is ours, else who holds it.
local held = redis.call('GET', KEYS[1])
local mine = ARGV[1] .. ':' .. ARGV[2]
if held and held ~= mine then
  local epoch = tonumber(string.match(held, '^(%d+):'))
  if epoch and epoch >= tonumber(ARGV[1]) then return held end
end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return ''
