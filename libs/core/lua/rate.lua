-- Take units of a rate limit: the rule of core.domain.limits.take, in microseconds of this server's own clock, so that
-- all processes agree on the time. KEYS[1] the bucket  ARGV: limit, period (us), cost, want
-- Answers {granted, remaining, us until all is back, us until `cost` would be granted}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local limit, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local cost, want = tonumber(ARGV[3]), tonumber(ARGV[4])
-- Further away than a period can only be a clock that was set back: cut, or the key would stay shut for long.
local start = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or now), now), now + period)
local interval = period / limit
local free = math.floor((now + period - start) / interval + 0.000001)
if cost > free then
  return {0, free, math.ceil(start - now), math.ceil(cost * interval - (now + period - start))}
end
local granted = math.min(math.max(cost, want), free)
if granted > 0 then
  start = start + granted * interval
  redis.call('SET', KEYS[1], string.format('%.0f', start), 'PX', math.ceil((start - now) / 1000) + 1)
end
return {granted, free - granted, math.ceil(start - now), 0}
