-- A record, and the time.
local there = redis.call('HMGET', KEYS[2], 's', 'm', 'h', 'i')
local now = clock()
if ARGV[1] == '1' then redis.call('HINCRBY', KEYS[1], 'shown', 1) end
if not there[1] and not there[2] and not there[3] then return {now} end
return {now, there[1], there[2], there[3], there[4]}
