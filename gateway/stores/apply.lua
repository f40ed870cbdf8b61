-- One change of the rules: every document of it or none, one revision, one entry of history, one notice.
--
-- KEYS  1 head  2 routes  3 cohorts  4 versions  5 changes  6 this operation
-- ARGV  1 operation id  2 actor  3 comment  4 time (Unix ns)  5 revision the head must have ('' for any)
--       6 entries of history to keep  7 seconds to remember the operation  8 channel of the notice
--       9 n, then n times (kind, name) of documents that must exist,
--       then to the end (kind, name, revision it must have, 'set' or 'delete', document)
--
-- Returns {'done', revision}, or what is in the way: {'headless'}, {'head', revision}, {'missing', kind, name} or
-- {'conflict', kind, name, revision}. Every check comes before the first write, and of the writes XADD comes first,
-- because it alone can fail (when the history is ahead of the head): Redis does not take back what a script has done.

local HEAD, CHANGES, OPERATION = KEYS[1], KEYS[5], KEYS[6]
local HASHES = {route = KEYS[2], cohort = KEYS[3], version = KEYS[4]}

local earlier = redis.call('GET', OPERATION)
if earlier then
  return {'done', earlier}
end
local present = redis.call('HGET', HEAD, 'revision')
if not present then
  return {'headless'}
end
if ARGV[5] ~= '' and ARGV[5] ~= present then
  return {'head', present}
end

local cursor = 10
for _ = 1, tonumber(ARGV[9]) do
  local kind, name = ARGV[cursor], ARGV[cursor + 1]
  if redis.call('HEXISTS', HASHES[kind], name) == 0 then
    return {'missing', kind, name}
  end
  cursor = cursor + 2
end

local changes = {}
for at = cursor, #ARGV, 5 do
  local kind, name, expected = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local stored = redis.call('HGET', HASHES[kind], name)
  local revision, before = '0', nil
  if stored then
    revision, before = string.match(stored, '^(%d+) (.*)$')
  end
  revision = revision or '0' -- something that no change has written can be replaced like nothing
  if revision ~= expected then
    return {'conflict', kind, name, revision}
  end
  local after = nil
  if ARGV[at + 3] == 'set' then
    after = ARGV[at + 4]
  end
  changes[#changes + 1] = {kind = kind, name = name, before = before, after = after}
end

local revision = string.format('%.0f', tonumber(present) + 1)
redis.call('XADD', CHANGES, 'MAXLEN', '=', ARGV[6], revision .. '-0',
  'operation', ARGV[1], 'actor', ARGV[2], 'comment', ARGV[3], 'at', ARGV[4], 'changes', cjson.encode(changes))
redis.call('HSET', HEAD, 'revision', revision)
for _, change in ipairs(changes) do
  if change.after then
    redis.call('HSET', HASHES[change.kind], change.name, revision .. ' ' .. change.after)
  else
    redis.call('HDEL', HASHES[change.kind], change.name)
  end
end
redis.call('SET', OPERATION, revision, 'EX', ARGV[7])
redis.call('PUBLISH', ARGV[8], revision)
return {'done', revision}
