-- A worker's read: say how much it wants, take what is there, in the order of KEYS.
-- KEYS: lists. ARGV: count, field of tf:free ("" = none), its value.
-- Answers whether somebody leads (tf:led), and for each list that had something: its index, ids (16 bytes each) joined.
local left = tonumber(ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', 'tf:free', ARGV[2], ARGV[3]) end
local answer = { redis.call('EXISTS', 'tf:led') }
for index, key in ipairs(KEYS) do
  if left <= 0 then break end
  local ids = redis.call('LPOP', key, left)
  if ids then
    left = left - #ids
    answer[#answer + 1] = index
    answer[#answer + 1] = table.concat(ids)
  end
end
if left > 0 and ARGV[2] ~= '' then
  redis.call('SET', 'tf:dry', '1', 'PX', 2000) -- it reads again within a second
  if redis.call('EXISTS', 'tf:backlog', 'tf:missed') > 0 then
    redis.call('LPUSH', 'tf:wake', '') -- a lane runs dry while there is work: the leader need not wait to find out
    redis.call('LTRIM', 'tf:wake', 0, 99)
  end
end
return answer
