-- What the scripts that write rules share; it is put in front of each of them (`rules_redis.py`).
--
-- KEYS  1 head  2 routes  3 cohorts  4 versions  5 changes  6 unconfirmed  7 held  8 this operation, where there is one

local HEAD, CHANGES, UNCONFIRMED, HELD, OPERATION = KEYS[1], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local HASHES = {route = KEYS[2], cohort = KEYS[3], version = KEYS[4]}

-- The revision of a document and its JSON; '0' and nil when there is none. Something that no change has written
-- counts as revision 0, so that it can be replaced like nothing.
local function document(kind, name)
  local stored = redis.call('HGET', HASHES[kind], name)
  local revision, json = string.match(stored or '', '^(%d+) (.*)$')
  return revision or '0', json
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Write the documents of {kind, name, after} as of a revision; `after` nil deletes.
local function write(changes, revision)
  for _, change in ipairs(changes) do
    if change.after then
      redis.call('HSET', HASHES[change.kind], change.name, revision .. ' ' .. change.after)
    else
      redis.call('HDEL', HASHES[change.kind], change.name)
    end
  end
end

-- The documents that an unconfirmed revision holds, as {{kind, name}, …}; without what no change has written.
local function held_by(entry)
  local documents = {}
  local understood, found = pcall(cjson.decode, string.match(entry or '', '^%d+ (.*)$') or '[]')
  for _, one in ipairs(understood and type(found) == 'table' and found or {}) do
    if type(one) == 'table' and type(one[1]) == 'string' and type(one[2]) == 'string' then
      documents[#documents + 1] = one
    end
  end
  return documents
end

-- Settle an unconfirmed revision: its documents are free again.
local function settle(revision, entry)
  for _, one in ipairs(held_by(entry)) do
    redis.call('HDEL', HELD, one[1] .. ' ' .. one[2])
  end
  redis.call('HDEL', UNCONFIRMED, revision)
end
