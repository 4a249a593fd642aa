-- What a commit leaves for others: references of new tasks (as far as there is credit), keys for the gate, rows for
-- the feeder to look at again, and a wake for the leader. Rows without credit are worth waking it for when a lane could
-- run them (tf:dry); else their queues are noted (tf:missed), and it is woken when one could. While nobody leads
-- (tf:led) its last word on where a type goes is followed, without credits: who reads there need not wait for a leader.
-- ARGV: number of groups, then for each: queue, type, priority, "1" when one owner's share is bounded, ids joined;
-- number of gate keys, then these; number of re-entries, then these; "1" to wake in any case, "0" only when
-- credit was short, "-" never. Answers how many of the new tasks found no credit.
local MOST, MOST_QUEUES = 100000, 1000
local MOST_UNLED = 1000 -- references that wait in a list
local at = 1
local function nextarg() at = at + 1 return ARGV[at - 1] end
local routes, credits, taken, short, hungry = {}, {}, {}, 0, {}
local led = redis.call('EXISTS', 'tf:led') == 1
for _ = 1, tonumber(nextarg()) do
  local queue, kind, priority, shared, ids = nextarg(), nextarg(), nextarg(), nextarg(), nextarg()
  local count, allowed = #ids / 16, 0
  local route = queue .. '\n' .. kind
  if routes[route] == nil then routes[route] = redis.call('HGET', 'tf:route:' .. queue, kind) end
  if routes[route] then
    local digest = routes[route]
    local key = 'tf:credit:' .. queue .. ':' .. digest
    local list = 'tf:r:' .. priority .. ':' .. digest .. ':' .. queue
    if credits[key] == nil then credits[key] = tonumber(redis.call('GET', key)) or (led and 0) end -- false: unled
    local most = credits[key] or MOST_UNLED - redis.call('LLEN', list)
    if shared == '1' then most = math.ceil(most / 2) end -- nobody takes all of what is left for everybody
    allowed = math.max(math.min(count, most), 0)
    for row = 0, allowed - 1 do redis.call('RPUSH', list, string.sub(ids, row * 16 + 1, row * 16 + 16)) end
    if allowed > 0 and credits[key] then
      credits[key] = credits[key] - allowed
      taken[key] = (taken[key] or 0) + allowed
    end
  end
  short = short + count - allowed
  if count > allowed then hungry[queue] = true end
end
for key, count in pairs(taken) do redis.call('DECRBY', key, count) end -- keeps the TTL
for _, list in ipairs({ 'tf:gate', 'tf:reentry' }) do
  local count = tonumber(nextarg())
  local room = 0
  if count > 0 then room = MOST - redis.call('LLEN', list) end
  for _ = 1, count do
    local item = nextarg()
    if room > 0 then redis.call('RPUSH', list, item) end
    room = room - 1
  end
end
local wake = nextarg()
if wake == '-' then return short end
local dry = next(hungry) and redis.call('EXISTS', 'tf:dry') == 1
for queue in pairs(hungry) do
  if dry then
    redis.call('LPUSH', 'tf:wake', queue)
  elseif redis.call('SCARD', 'tf:missed') < MOST_QUEUES then
    redis.call('SADD', 'tf:missed', queue)
  end
end
if wake == '1' then redis.call('LPUSH', 'tf:wake', '') end
if wake == '1' or dry then redis.call('LTRIM', 'tf:wake', 0, 99) end
return short
