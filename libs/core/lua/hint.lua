-- The leader's references. KEYS: lists. ARGV: for each, its ids (16 bytes each) joined.
local AT_ONCE = 1000 -- as many as fit onto Lua's stack, by far
for index, key in ipairs(KEYS) do
  local ids = ARGV[index]
  for from = 1, #ids, 16 * AT_ONCE do
    local some = {}
    for at = from, math.min(from + 16 * AT_ONCE - 1, #ids), 16 do some[#some + 1] = string.sub(ids, at, at + 15) end
    redis.call('RPUSH', key, unpack(some))
  end
end
return 1
