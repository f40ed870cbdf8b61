-- Begin the life of an empty store: a new epoch at revision 0. A store that has a head keeps it.
--
-- KEYS  1 head, then every other key of the rules    ARGV  1 the new epoch
-- Returns {epoch, revision}, or {} when the head is lost while documents or history are there: what revision they
-- are of nobody can say, and a guess would let workers take old rules for new ones.

if redis.call('EXISTS', KEYS[1]) == 0 then
  for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then
      return {}
    end
  end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'revision', '0')
end
return redis.call('HMGET', KEYS[1], 'epoch', 'revision')
