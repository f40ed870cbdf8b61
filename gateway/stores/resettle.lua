-- A new life of the store: an operator has said which rules are right after it lost some.
--
-- KEYS  see rules.lua
-- ARGV  1 operation id  2 actor  3 comment  4 time (Unix ns)  5 the new epoch
--       6 epoch and 7 revision of the head that was seen ('' for none)  8 revision to be beyond
--       9 entries of history to keep  10 seconds to remember the operation  11 channel of the notice
--       12 lives to remember  13 n, then n times (epoch that ends, last revision of it that counts),
--       then to the end (kind, name, 'set' or 'delete', document)
--
-- Returns {'done', epoch, revision}, or {'seen', epoch, revision} of another head than the one that was seen (both ''
-- for none). The history has every document that is written, also those that stay as they are in the store: the rules
-- that were lost may have said otherwise, and who looks at the past reads both lives of the store in one line.
-- As in apply.lua, of the writes XADD comes first.

local earlier = redis.call('GET', OPERATION)
if earlier then
  local revision, epoch = string.match(earlier, '^(%d+) ?(.*)$')
  return {'done', epoch, revision}
end
local head = redis.call('HMGET', HEAD, 'epoch', 'revision')
local epoch, present = head[1], head[2]
if not epoch or not present or not string.match(present, '^%d+$') then
  epoch, present = '', ''
end
if epoch ~= ARGV[6] or present ~= ARGV[7] then
  return {'seen', epoch, present}
end

local last = math.max(tonumber(ARGV[8]), tonumber(present) or 0)
if redis.call('EXISTS', CHANGES) == 1 then
  local information = redis.call('XINFO', 'STREAM', CHANGES)
  for at = 1, #information, 2 do
    if information[at] == 'last-generated-id' then
      last = math.max(last, tonumber(string.match(information[at + 1], '^%d+')))
    end
  end
end
local revision = whole(last + 1)

-- Earlier lives in their order, the newest last; one that ends once more counts as it ends now.
local ending, lives = {}, {}
local first = 14 + 2 * tonumber(ARGV[13])
for at = 14, first - 1, 2 do
  ending[ARGV[at]] = true
end
local understood, known = pcall(cjson.decode, redis.call('HGET', HEAD, 'follows') or '[]')
for _, life in ipairs(understood and type(known) == 'table' and known or {}) do
  if type(life) == 'table' and type(life[1]) == 'string' and type(life[2]) == 'number' and not ending[life[1]] then
    lives[#lives + 1] = life
  end
end
for at = 14, first - 1, 2 do
  lives[#lives + 1] = {ARGV[at], tonumber(ARGV[at + 1])}
end
while #lives > tonumber(ARGV[12]) do
  table.remove(lives, 1)
end

local changes = {}
for at = first, #ARGV, 4 do
  local _, before = document(ARGV[at], ARGV[at + 1])
  local after = nil
  if ARGV[at + 2] == 'set' then
    after = ARGV[at + 3]
  end
  changes[#changes + 1] = {kind = ARGV[at], name = ARGV[at + 1], before = before, after = after}
end

redis.call('XADD', CHANGES, 'MAXLEN', '=', ARGV[9], revision .. '-0',
  'operation', ARGV[1], 'actor', ARGV[2], 'comment', ARGV[3], 'at', ARGV[4],
  'changes', #changes > 0 and cjson.encode(changes) or '[]')
redis.call('HSET', HEAD, 'epoch', ARGV[5], 'revision', revision,
  'follows', #lives > 0 and cjson.encode(lives) or '[]')
write(changes, revision)

-- What was decided here is not taken back; unconfirmed revisions keep only what was not written.
local written = {}
for _, change in ipairs(changes) do
  written[change.kind .. ' ' .. change.name] = true
end
local unconfirmed = redis.call('HGETALL', UNCONFIRMED)
for at = 1, #unconfirmed, 2 do
  local left = {}
  for _, one in ipairs(held_by(unconfirmed[at + 1])) do
    local field = one[1] .. ' ' .. one[2]
    if written[field] then
      redis.call('HDEL', HELD, field)
    else
      left[#left + 1] = one
    end
  end
  if #left == 0 then
    redis.call('HDEL', UNCONFIRMED, unconfirmed[at])
  else
    local due = string.match(unconfirmed[at + 1], '^%d+')
    redis.call('HSET', UNCONFIRMED, unconfirmed[at], due .. ' ' .. cjson.encode(left))
  end
end
redis.call('SET', OPERATION, revision .. ' ' .. ARGV[5], 'EX', ARGV[10])
redis.call('PUBLISH', ARGV[11], revision)
return {'done', ARGV[5], revision}
