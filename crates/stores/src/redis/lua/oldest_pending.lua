-- The earliest creation of each kind of pending record.
local answer = {(clock())}
for _, kind in ipairs(redis.call('HKEYS', KEYS[3])) do
  if string.byte(kind, 10) == 0 then
    local term = string.sub(kind, 1, 8)
    local place = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. term, '[' .. term .. string.rep('\255', 25), 'LIMIT', 0, 1)
    if place[1] then answer[#answer + 1] = string.sub(place[1], 9, 16) end
  end
end
return answer
