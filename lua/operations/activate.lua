-- Takes over which versions of a rate card are active from when. Older news than what is there changes nothing.
-- ARGV    rate_card_id, number (counts up with each change of the card), activations ("version from version from ..." by time)
-- Answers ok
-- Writes  rates
function operations.activate(i)
  local field, number = 'a ' .. ARGV[i], ARGV[i + 1]
  local known = rate_writes[field] or redis.call('HGET', RATES, field) or '0'
  if number + 0 >= match(known, '^%d+') + 0 then rate_writes[field] = number .. ' ' .. ARGV[i + 2] end
  return 'ok'
end
