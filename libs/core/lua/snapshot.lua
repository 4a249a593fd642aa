-- What the leader needs to know of a server. KEYS: streams. ARGV: its generation, "1" to be woken by hungry lanes.
-- Answers: 1 when the generation was lost (Redis was emptied, or another leader's); what workers said they want
-- (tf:free, flat); for each stream how many references wait in it and how many were handed out; why the leader was
-- woken; where rows were made QUEUED by others.
local lost = 0
if redis.call('GET', 'tf:generation') ~= ARGV[1] then
  local set = redis.pcall('SET', 'tf:generation', ARGV[1]) -- refused when out of memory: then nothing was lost yet
  if not set.err then lost = 1 end
end
if ARGV[2] == '1' then redis.pcall('SET', 'tf:backlog', '1', 'EX', 3) end
local lengths = {}
for index, key in ipairs(KEYS) do
  local all, out = redis.call('XLEN', key), 0
  if all > 0 then
    local groups = redis.call('XINFO', 'GROUPS', key)
    for _, group in ipairs(groups) do
      for field = 1, #group, 2 do
        if group[field] == 'pending' then out = out + group[field + 1] end
      end
    end
  end
  lengths[2 * index - 1], lengths[2 * index] = all - out, out
end
local wakes = redis.call('LPOP', 'tf:wake', 100) or {}
local again = redis.call('LPOP', 'tf:reentry', 5000) or {}
return { lost, redis.call('HGETALL', 'tf:free'), lengths, wakes, again }
