-- One worker says which rules it has. The server's clock stamps it, so clocks of machines need not agree.
--
-- KEYS  1 acknowledgements    ARGV  1 worker  2 what it says  3 ms after which a silent worker is forgotten
--
-- It is said again every second, so it is kept out of the append-only file and of replicas, where it would be most
-- of what is written; a server that does not let scripts do that (some managed ones) just writes it.
pcall(redis.set_repl, redis.REPL_NONE)

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local new = redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
if new == 1 then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local said = tonumber(string.match(all[i + 1], '^(%d+) '))
    if not said or now - said > tonumber(ARGV[3]) then
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end
return new
