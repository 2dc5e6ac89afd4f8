-- Places of records by one term, or by the kinds that are asked for, the newest of each. Whoever asks puts them in order:
-- texts are compared by the server's locale here.
local below, from, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local term, namespace, states, operation = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local found = {}
local function look(of)
  local places = redis.call('ZREVRANGEBYLEX', KEYS[2], '(' .. of .. below, '[' .. of .. from, 'LIMIT', 0, limit)
  for _, place in ipairs(places) do found[#found + 1] = string.sub(place, 9) end
end
if term ~= '' then
  look(term)
else
  for _, kind in ipairs(redis.call('HKEYS', KEYS[3])) do
    if (namespace == '' or string.sub(kind, 9, 9) == namespace)
      and (states == '' or string.find(states, string.sub(kind, 10, 10), 1, true))
      and (operation == '' or string.sub(kind, 11) == operation) then
      look(string.sub(kind, 1, 8))
    end
  end
end
table.insert(found, 1, (clock()))
return found
