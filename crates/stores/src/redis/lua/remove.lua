-- Removes a record: the version that was expected, or, without one, whatever has come to rest and expired. Its fence needs
-- no note: the shard's last one is above it already.
local r, due, names, expires, counts = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local expected, id, channel, node = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = clock()
local there = redis.call('HMGET', r, 's', 'm', 'h')
local old = whole(there[1], there[2], there[3])
if old == false then return {'corrupt', now} end
if old == nil then
  redis.call('ZREM', expires, id)
  return {'conflict', now}
end
if expected == '' then
  if old.expires == 0 or old.expires > now then return {'conflict', now} end
elseif string.sub(there[1], 1, 12) ~= expected then
  return {'conflict', now}
end
local was = meta_of(there[2])
if old.wake > 0 then redis.call('ZREM', due, due_member(was.lane, old.wake, id)) end
redis.call('ZREM', expires, id)
redis.call('ZREM', names, unpack(places(was, old.created, id)))
count(counts, was.kind, -1)
-- Of an import, a fence may be above all that were given here.
local last = tonumber(redis.call('HGET', KEYS[1], 'fence') or 0)
if old.fence > last then redis.call('HSET', KEYS[1], 'fence', string.format('%.0f', old.fence)) end
redis.call('DEL', r)
if channel ~= '' then redis.pcall('PUBLISH', channel, node .. id) end
return {'done', now}
