-- The swap: puts a version where the expected one is, or the first where none is. What the version is, was decided
-- elsewhere; here it is compared, stamped and stored, with its places in the orders. The record itself is written last:
-- whatever fails before leaves it as it was.
local r, due, names, expires, counts = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local expected, deadline, after, floor = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local raise, begins, wake, rests = ARGV[5] == '1', ARGV[6] == '1', ARGV[7], ARGV[8]
local lane, kind, terms, head, input = ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local id, waits, channel, node = ARGV[14], ARGV[15] == '1', ARGV[16], ARGV[17]

local now, micros = clock()
local there = redis.call('HMGET', r, 's', 'm', 'h')
local old = whole(there[1], there[2], there[3])
if old == false then return {'corrupt', now} end
if now > deadline then return {'late', now} end
if (old and string.sub(there[1], 1, 12) or '') ~= expected then
  -- Whoever is shown this version waits until it is where their own writes have to be.
  if waits then redis.call('HINCRBY', KEYS[1], 'shown', 1) end
  if not old then return {'conflict', now} end
  return {'conflict', now, there[1], there[2], there[3], redis.call('HGET', r, 'i')}
end

local new = {created = now, written = now, settled = 0, expires = 0, wake = 0, fence = 0, sequence = 0}
if old then
  if old.written > now then new.written = old.written end
  new.created = begins and new.written or old.created
  new.fence, new.sequence = old.fence, old.sequence + 1
end
if raise then
  local last = tonumber(redis.call('HGET', KEYS[1], 'fence') or 0)
  new.fence = math.max(math.max(after, last, new.fence) + 1, micros, floor)
  new.sequence = 0
end
if new.fence >= 9007199254740992 or new.sequence > 4294967295 then return {'spent', now} end
if wake == 'keep' then new.wake = old and old.wake or 0
elseif wake ~= '' then new.wake = new.written + tonumber(wake) end
-- At rest already: it stays so as it was, and its input goes.
local kept = rests == 'keep'
if kept then new.settled, new.expires = old and old.settled or 0, old and old.expires or 0
elseif rests ~= '' then new.settled, new.expires = new.written, new.written + tonumber(rests) end

local was = old and meta_of(there[2])
local is = {lane = lane, kind = kind, terms = (was and not begins) and was.terms or terms}
if raise then redis.call('HSET', KEYS[1], 'fence', string.format('%.0f', new.fence)) end

local first_due = false
if not was or was.lane ~= lane or old.wake ~= new.wake then
  if was and old.wake > 0 then redis.call('ZREM', due, due_member(was.lane, old.wake, id)) end
  if new.wake > 0 then
    local member = due_member(lane, new.wake, id)
    redis.call('ZADD', due, 0, member)
    first_due = redis.call('ZRANGEBYLEX', due, '[' .. lane .. '\0', '+', 'LIMIT', 0, 1)[1] == member
  end
end
if new.expires > 0 then redis.call('ZADD', expires, new.expires, id)
elseif old and old.expires > 0 then redis.call('ZREM', expires, id) end
if begins or not was then
  if was then redis.call('ZREM', names, unpack(places(was, old.created, id))) end
  local scored = {}
  for _, place in ipairs(places(is, new.created, id)) do
    scored[#scored + 1] = 0
    scored[#scored + 1] = place
  end
  redis.call('ZADD', names, unpack(scored))
elseif was.kind ~= kind then
  local place = be(new.created) .. id
  redis.call('ZREM', names, string.sub(was.kind, 1, 8) .. place)
  redis.call('ZADD', names, 0, string.sub(kind, 1, 8) .. place)
end
if not was or was.kind ~= kind then
  if was then count(counts, was.kind, -1) end
  count(counts, kind, 1)
end
if KEYS[7] then audit(new.written, KEYS[7], KEYS[8], KEYS[9], ARGV[18], ARGV[19], ARGV[20], ARGV[21]) end

local stamps = struct.pack('>I8I4I8I8I8I8I8', new.fence, new.sequence, new.created, new.written, new.wake,
  new.settled, new.expires)
local meta = struct.pack('>I2c0I2c0', #is.lane, is.lane, #is.kind, is.kind) .. is.terms
if (begins and input == '') or kept then redis.call('HDEL', r, 'i') end
local fields = {'s', stamps .. sum(stamps, meta, head), 'm', meta, 'h', head}
if input ~= '' and (begins or redis.call('HEXISTS', r, 'i') == 0) then
  fields[7], fields[8] = 'i', input
end
redis.call('HSET', r, unpack(fields))
-- It is written; a hint that cannot be given is left to the others' own looks.
if channel ~= '' and (was or first_due) then
  redis.pcall('PUBLISH', channel, node .. id .. (first_due and 'd' or ''))
end
return {'done', new.written, fields[2]}
