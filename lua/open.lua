-- Makes a partition when Redis has none, or checks that it is the one that the store knows and that its settings agree.
-- KEYS    1 meta, 2 accounts, 3 outbox
-- ARGV    1 schema, 2 decimal_places, 3 partitions, 4 create | check (make nothing: the store cannot be
--         asked now) | rebuild (after a rebuild's clean-up: make it, closed),
--         then the store's watermark (all 0 and "-" where it has none): 5 epoch, 6 seq, 7 head
-- Answers opened | present | lost (the store or Redis itself knows of a history that Redis no longer has; closed)
--         | mismatch name value
-- Writes  meta
local fields = redis.call('HMGET', KEYS[1], 'schema', 'decimal_places', 'partitions', 'epoch', 'seq', 'head', 'state')
local epoch, seq, head = ARGV[5], ARGV[6] + 0, ARGV[7]
if fields[1] then
  for i, name in ipairs({ 'schema', 'decimal_places', 'partitions' }) do
    if fields[i] ~= ARGV[i] then return 'mismatch ' .. name .. ' ' .. fields[i] end
  end
  if fields[7] ~= 'open' then return 'lost' end
  local behind = seq > fields[5] + 0 or seq == fields[5] + 0 and seq > 0 and head ~= fields[6]
  if seq > 0 and (behind or epoch ~= fields[4]) then
    redis.call('HSET', KEYS[1], 'state', 'lost')
    return 'lost'
  end
  return 'present'
end
if redis.call('EXISTS', KEYS[2]) + redis.call('EXISTS', KEYS[3]) > 0 then return 'lost' end
local rebuild = ARGV[4] == 'rebuild'
if ARGV[4] == 'check' or seq > 0 and not rebuild then return 'lost' end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'decimal_places', ARGV[2], 'partitions', ARGV[3], 'recent', 'a',
  'recent_since', now, 'state', rebuild and 'rebuilding' or 'open', 'epoch', rebuild and epoch or '1',
  'seq', string.format('%.0f', seq), 'head', head, 'flushed', string.format('%.0f', seq))
return 'opened'
