-- Refuses the batch, and closes the partition for everybody where that is new, before anything is written. It stays closed
-- until a rebuild.
local state, why = fields[2] or 'closed', redis.call('HGET', META, 'why')
if state == 'open' then
  local names = names_of_gone()
  why = names ~= '' and 'missing ' .. names or format('behind %s %s %s, at %s %s %s', ARGV[11], ARGV[12], ARGV[13], epoch,
    fields[4], head)
  state = 'lost'
  redis.call('HSET', META, 'state', state, 'why', why)
end
if is_behind and state == 'lost' and known_seq > (redis.call('HGET', META, 'acknowledged') or '0') + 0 then
  redis.call('HSET', META, 'acknowledged', ARGV[12]) -- for the report of the rebuild
end
if why then state = state .. ' ' .. why end
return 'refused ' .. state
