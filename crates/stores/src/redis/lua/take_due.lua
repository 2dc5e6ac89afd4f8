-- What is due in a lane, the longest due first: when, and which.
local lane, limit = ARGV[1], ARGV[2]
local now = clock()
local found = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. lane .. '\0', '(' .. lane .. '\0' .. be(now + 1), 'LIMIT', 0,
  limit)
local answer = {now}
for _, member in ipairs(found) do answer[#answer + 1] = string.sub(member, -24) end
return answer
