-- References in the hands of consumers that are gone go back into the stream; those that a living one never gave
-- back are dropped (its answer was lost; PostgreSQL has the rows, and the feeder hints them again).
-- KEYS: stream. ARGV: least idle milliseconds of a dead consumer, of a living one's entry, then the living consumers.
-- Answers: how many went back, how many were dropped.
local key, idle, stale = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local living, back, dropped = {}, 0, 0
for index = 3, #ARGV do living[ARGV[index]] = true end
local consumers = redis.pcall('XINFO', 'CONSUMERS', key, 'w')
if consumers.err then return { 0, 0 } end
local function give_up(entries)
  for _, entry in ipairs(entries) do
    redis.call('XACK', key, 'w', entry[1])
    redis.call('XDEL', key, entry[1])
  end
end
for _, flat in ipairs(consumers) do
  local consumer = {}
  for field = 1, #flat, 2 do consumer[flat[field]] = flat[field + 1] end
  if living[consumer.name] then
    if consumer.pending > 0 then
      local entries = redis.call('XPENDING', key, 'w', 'IDLE', stale, '-', '+', 500, consumer.name)
      dropped = dropped + #entries
      give_up(entries)
    end
  elseif consumer.idle >= idle then
    local entries = redis.call('XPENDING', key, 'w', '-', '+', 500, consumer.name)
    for _, entry in ipairs(entries) do
      local found = redis.call('XRANGE', key, entry[1], entry[1])
      if found[1] then
        redis.call('XADD', key, '*', unpack(found[1][2]))
        back = back + 1
      end
    end
    give_up(entries)
    if #entries < 500 then redis.call('XGROUP', 'DELCONSUMER', key, 'w', consumer.name) end
  end
end
return { back, dropped }
