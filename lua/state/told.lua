-- What the outbox tells of a seq: an entry has the transactions of a whole call (state/writing.lua), one of schema 1 has one.

-- The transaction_id of that seq, and the one that it follows, as the outbox has them; nil where it does not have that seq.
local function told_of(outbox, seq)
  local found = redis.call('XRANGE', outbox, string.format('%d-0', seq), '+', 'COUNT', 1)[1]
  local text = found and found[2][2] or ''
  local first, prev = string.match(text, '^%[%d+,%d+,(%d+),"([^"]*)"')
  if not first or first + 0 > seq then return nil end -- it is gone, or nobody can read it
  local partition, sender, batch = string.match(text, '^%[2,%d+,%d+,"[^"]*",(%d+),"([^"]*)",(%d+),')
  if not partition then return string.match(text, '^%[1,%d+,%d+,"[^"]*","([^"]*)"'), prev end
  if first + 0 < seq then prev = string.format('%s-%d-%s-%s', partition, seq - 1, sender, batch) end
  return string.format('%s-%d-%s-%s', partition, seq, sender, batch), prev
end
