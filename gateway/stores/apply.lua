-- One change of the rules: every document of it or none, one revision, one entry of history, one notice.
--
-- KEYS  see rules.lua
-- ARGV  1 operation id  2 actor  3 comment  4 time (Unix ns)  5 revision the head must have ('' for any)
--       6 epoch and 7 revision that the store must not be behind ('' for any)
--       8 ms after which the change is due to be taken back ('' if it is to stand)
--       9 unconfirmed revision that it settles ('' for none)  10 preview ('' for none)
--       11 entries of history to keep  12 seconds to remember the operation  13 channel of the notice
--       14 n, then n times (kind, name) of documents that must exist,
--       then to the end (kind, name, revision it must have, 'set' or 'delete', document)
--
-- Returns {'done', revision}, or what is in the way: {'headless'}, {'behind', epoch, revision}, {'head', revision},
-- {'settled'}, {'held', kind, name, revision}, {'missing', kind, name} or {'conflict', kind, name, revision}.
-- Every check comes before the first write, and of the writes XADD comes first, because it alone can fail (when the
-- history is ahead of the head, or memory is full): Redis does not take back what a script has done.

local earlier = redis.call('GET', OPERATION)
if earlier then
  return {'done', string.match(earlier, '^%d+')}
end
local head = redis.call('HMGET', HEAD, 'epoch', 'revision')
local epoch, present = head[1], head[2]
if not epoch or not present or not string.match(present, '^%d+$') then
  return {'headless'}
end
if ARGV[6] ~= '' and (ARGV[6] ~= epoch or tonumber(present) < tonumber(ARGV[7])) then
  return {'behind', epoch, present}
end
if ARGV[5] ~= '' and ARGV[5] ~= present then
  return {'head', present}
end
local settles = ARGV[9]
local unsettled = settles ~= '' and redis.call('HGET', UNCONFIRMED, settles)
if settles ~= '' and not unsettled then
  return {'settled'}
end

local needed = tonumber(ARGV[14])
local first = 15 + 2 * needed
local outcome = {}
for at = first, #ARGV, 5 do
  local kind, name = ARGV[at], ARGV[at + 1]
  local holder = redis.call('HGET', HELD, kind .. ' ' .. name)
  if holder and holder ~= settles and redis.call('HEXISTS', UNCONFIRMED, holder) == 1 then
    return {'held', kind, name, holder}
  end
  outcome[kind .. ' ' .. name] = ARGV[at + 3]
end
for at = 15, first - 1, 2 do
  local kind, name = ARGV[at], ARGV[at + 1]
  local written = outcome[kind .. ' ' .. name]
  if written == 'delete' or (not written and redis.call('HEXISTS', HASHES[kind], name) == 0) then
    return {'missing', kind, name}
  end
end

local changes, names = {}, {}
for at = first, #ARGV, 5 do
  local kind, name = ARGV[at], ARGV[at + 1]
  local revision, before = document(kind, name)
  if revision ~= ARGV[at + 2] then
    return {'conflict', kind, name, revision}
  end
  local after = nil
  if ARGV[at + 3] == 'set' then
    after = ARGV[at + 4]
  end
  changes[#changes + 1] = {kind = kind, name = name, before = before, after = after}
  names[#names + 1] = {kind, name}
end

local revision = whole(tonumber(present) + 1)
local entry = {'operation', ARGV[1], 'actor', ARGV[2], 'comment', ARGV[3], 'at', ARGV[4]}
if ARGV[10] ~= '' then
  entry[9], entry[10] = 'preview', ARGV[10]
end
redis.call('XADD', CHANGES, 'MAXLEN', '=', ARGV[11], revision .. '-0', 'changes', cjson.encode(changes), unpack(entry))
redis.call('HSET', HEAD, 'revision', revision)
write(changes, revision)
if unsettled then
  settle(settles, unsettled)
end
if ARGV[8] ~= '' then
  local clock = redis.call('TIME')
  local due = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[8])
  redis.call('HSET', UNCONFIRMED, revision, whole(due) .. ' ' .. cjson.encode(names))
  for _, name in ipairs(names) do
    redis.call('HSET', HELD, name[1] .. ' ' .. name[2], revision)
  end
end
redis.call('SET', OPERATION, revision, 'EX', ARGV[12])
redis.call('PUBLISH', ARGV[13], revision)
return {'done', revision}
