-- The leader's references. KEYS: streams. ARGV: for each, its ids (16 bytes each) joined.
for index, key in ipairs(KEYS) do
  local ids = ARGV[index]
  for from = 1, #ids, 16 do redis.call('XADD', key, '*', 'i', string.sub(ids, from, from + 15)) end
end
return 1
