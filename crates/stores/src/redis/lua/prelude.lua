-- What all scripts share. KEYS[1] is the shard's own hash.

local function be(number) return struct.pack('>I8', number) end

-- 0 stands for a time that is not set: the server's clock never says it.
local function stamps_of(s)
  local v = {struct.unpack('>I8I4I8I8I8I8I8', s)}
  return {fence = v[1], sequence = v[2], created = v[3], written = v[4], wake = v[5], settled = v[6], expires = v[7]}
end

local function sum(stamps, meta, head)
  return string.sub(redis.sha1hex(stamps .. meta .. head), 1, 16)
end

-- Of a record's fields: its stamps if it is there and whole; nil if it is not there; false if it is damaged.
local function whole(s, meta, head)
  if not s and not meta and not head then return nil end
  if not s or not meta or not head or #s ~= 68 then return false end
  local stamps = string.sub(s, 1, 52)
  if string.sub(s, 53) ~= sum(stamps, meta, head) then return false end
  return stamps_of(stamps)
end

local function meta_of(meta)
  local lane, kind, at = struct.unpack('>I2c0I2c0', meta)
  return {lane = lane, kind = kind, terms = string.sub(meta, at)}
end

local function due_member(lane, wake, id) return lane .. '\0' .. be(wake) .. id end

-- The places of a life in the order of names: one for each term, and one for its kind.
local function places(meta, created, id)
  local after, all = be(created) .. id, {string.sub(meta.kind, 1, 8) .. be(created) .. id}
  for at = 1, #meta.terms, 8 do all[#all + 1] = string.sub(meta.terms, at, at + 7) .. after end
  return all
end

local function count(counts, kind, by)
  if redis.call('HINCRBY', counts, kind, by) <= 0 then redis.call('HDEL', counts, kind) end
end

-- The next number of the audit log: never below one that was given, and so neither its time.
local function next_number(now)
  local last = redis.call('HGET', KEYS[1], 'audit')
  local at, seq = now, 0
  if last then
    local last_at, last_seq = struct.unpack('>I6I2', last)
    if last_at >= now then at, seq = last_at, last_seq + 1 end
    if seq > 8191 then at, seq = at + 1, 0 end
  end
  local number = struct.pack('>I6I2', at, seq)
  redis.call('HSET', KEYS[1], 'audit', number)
  return number, string.format('%.0f-%d', at, seq)
end

-- An entry of the audit log, with the terms that it is found by.
local function audit(now, terms_key, entries, cells, cell, about, terms, entry)
  local number, id = next_number(now)
  redis.call('XADD', entries, id, 'c', cell, 't', terms, 'b', entry)
  redis.call('HSET', cells, cell, about)
  for at = 1, #terms, 8 do
    redis.call('ZADD', terms_key, 0, string.sub(terms, at, at + 7) .. cell .. number)
  end
end
