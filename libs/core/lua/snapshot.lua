-- What the leader needs to know of a server. KEYS: lists. ARGV: its generation, "1" to be woken by hungry lanes.
-- Answers: 1 when the generation was lost (Redis was emptied, or another leader's); what workers said they want
-- (tf:free, flat); for each list how many references wait in it; why the leader was woken, and which queues lacked
-- credit; where rows were made QUEUED by others.
local lost = 0
if redis.call('GET', 'tf:generation') ~= ARGV[1] then
  local set = redis.pcall('SET', 'tf:generation', ARGV[1]) -- refused when out of memory: then nothing was lost yet
  if not set.err then lost = 1 end
end
if ARGV[2] == '1' then redis.pcall('SET', 'tf:backlog', '1', 'EX', 3) end
local lengths = {}
for index, key in ipairs(KEYS) do lengths[index] = redis.call('LLEN', key) end
local wakes = redis.call('LPOP', 'tf:wake', 100) or {}
for _, queue in ipairs(redis.call('SMEMBERS', 'tf:missed')) do wakes[#wakes + 1] = queue end
redis.call('DEL', 'tf:missed')
local again = redis.call('LPOP', 'tf:reentry', 5000) or {}
return { lost, redis.call('HGETALL', 'tf:free'), lengths, wakes, again }
