-- The lanes, each with its earliest: one look for each. No lane holds a control character.
local answer, from = {(clock())}, '-'
while true do
  local member = redis.call('ZRANGEBYLEX', KEYS[2], from, '+', 'LIMIT', 0, 1)[1]
  if not member then return answer end
  local lane = string.sub(member, 1, -26)
  answer[#answer + 1] = lane
  answer[#answer + 1] = string.sub(member, -24, -17)
  from = '[' .. lane .. '\1'
end
