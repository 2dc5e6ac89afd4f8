-- Audit entries below a number, the newest first: of all, or by one term and by who did what.
local below, from, limit, term = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local operation, actor, action = ARGV[5], ARGV[6], ARGV[7]
local function id_of(number)
  local at, seq = struct.unpack('>I6I2', number)
  return string.format('%.0f-%d', at, seq)
end
if term == '' then
  local found = redis.call('XREVRANGE', KEYS[3], '(' .. id_of(below), id_of(from), 'COUNT', limit)
  local answer = {#found}
  for _, entry in ipairs(found) do
    local at, seq = string.match(entry[1], '^(%d+)-(%d+)$')
    answer[#answer + 1] = struct.pack('>I6I2', tonumber(at), tonumber(seq))
    answer[#answer + 1] = entry[2][6]
  end
  return answer
end
local numbers, min = {}, '[' .. term
local last = '[' .. term .. string.rep('\255', 17)
while true do
  local next = redis.call('ZRANGEBYLEX', KEYS[2], min, last, 'LIMIT', 0, 1)[1]
  if not next then break end
  local cell = string.sub(next, 9, 16)
  local about = redis.call('HGET', KEYS[4], cell)
  if about and (operation == '' or string.sub(about, 1, 9) == operation)
    and (actor == '' or string.sub(about, 10, 17) == actor)
    and (action == '' or string.sub(about, 18) == action) then
    local found = redis.call('ZREVRANGEBYLEX', KEYS[2], '(' .. term .. cell .. below, '[' .. term .. cell .. from,
      'LIMIT', 0, limit)
    for _, member in ipairs(found) do
      local at, seq = struct.unpack('>I6I2', member, 17)
      numbers[#numbers + 1] = {at = at, seq = seq, number = string.sub(member, 17)}
    end
  end
  min = '(' .. term .. cell .. string.rep('\255', 8)
end
-- As numbers: texts are compared by the server's locale here.
table.sort(numbers, function(one, other) return one.at > other.at or (one.at == other.at and one.seq > other.seq) end)
local answer = {#numbers}
for at = 1, math.min(#numbers, limit) do
  local number = numbers[at].number
  local id = id_of(number)
  local entry = redis.call('XRANGE', KEYS[3], id, id)[1]
  if not entry then return {'corrupt'} end
  answer[#answer + 1] = number
  answer[#answer + 1] = entry[2][6]
end
return answer
