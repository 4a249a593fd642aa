-- A worker's read: give back the batch before, say how much it wants, take what is there, in the order of KEYS.
-- KEYS: streams. ARGV: consumer, count, field of tf:free ("" = none), its value,
-- number of acks, then for each: stream, entry ids joined by spaces.
-- Answers for each stream that had something: its index, ids (16 bytes each) joined, entry ids joined by spaces.
local consumer, left = ARGV[1], tonumber(ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', 'tf:free', ARGV[3], ARGV[4]) end
for group = 1, tonumber(ARGV[5]) do
  local key, entries = ARGV[4 + 2 * group], {}
  for entry in string.gmatch(ARGV[5 + 2 * group], '%S+') do entries[#entries + 1] = entry end
  for from = 1, #entries, 1000 do
    local to = math.min(from + 999, #entries)
    redis.pcall('XACK', key, 'w', unpack(entries, from, to)) -- no such group: nothing to give back
    redis.call('XDEL', key, unpack(entries, from, to))
  end
end
local function take(key)
  return redis.pcall('XREADGROUP', 'GROUP', 'w', consumer, 'COUNT', left, 'STREAMS', key, '>')
end
local answer = {}
for index, key in ipairs(KEYS) do
  if left <= 0 then break end
  local got = take(key)
  if got and got.err then
    if not string.find(got.err, 'NOGROUP', 1, true) then return got end
    redis.call('XGROUP', 'CREATE', key, 'w', '0', 'MKSTREAM') -- Redis was emptied, or we are the first
    got = take(key)
    if got and got.err then return got end
  end
  if got and got[1] then
    local ids, entries = {}, {}
    for at, entry in ipairs(got[1][2]) do
      entries[at], ids[at] = entry[1], entry[2][2]
    end
    left = left - #ids
    answer[#answer + 1] = index
    answer[#answer + 1] = table.concat(ids)
    answer[#answer + 1] = table.concat(entries, ' ')
  end
end
if left > 0 and ARGV[3] ~= '' and redis.call('EXISTS', 'tf:backlog') == 1 then
  redis.call('LPUSH', 'tf:wake', '') -- a lane runs dry while there is work: the leader need not wait to find out
  redis.call('LTRIM', 'tf:wake', 0, 99)
end
return answer
