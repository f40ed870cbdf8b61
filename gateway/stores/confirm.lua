-- Let an unconfirmed revision stand.
--
-- KEYS  see rules.lua; no operation    ARGV  1 the revision
-- Returns 1, or 0 when it is not unconfirmed (any more).

local entry = redis.call('HGET', UNCONFIRMED, ARGV[1])
if not entry then
  return 0
end
settle(ARGV[1], entry)
return 1
