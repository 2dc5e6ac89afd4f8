-- Drops the oldest entries that were stamped before a time.
local found = redis.call('XRANGE', KEYS[3], '-', '(' .. ARGV[1] .. '-0', 'COUNT', ARGV[2])
for _, entry in ipairs(found) do
  local cell, terms = entry[2][2], entry[2][4]
  local at, seq = string.match(entry[1], '^(%d+)-(%d+)$')
  local number = struct.pack('>I6I2', tonumber(at), tonumber(seq))
  for term = 1, #terms, 8 do redis.call('ZREM', KEYS[2], string.sub(terms, term, term + 7) .. cell .. number) end
  redis.call('XDEL', KEYS[3], entry[1])
end
return #found
