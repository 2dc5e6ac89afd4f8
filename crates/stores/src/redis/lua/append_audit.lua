-- Entries for the audit log, in order, all of them or none: each with when it happened, or 0 for now.
local now = clock()
for at = 1, #ARGV, 5 do
  local happened = tonumber(ARGV[at + 4])
  if happened == 0 or happened > now then happened = now end
  audit(happened, KEYS[2], KEYS[3], KEYS[4], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
end
return now
