-- Makes a partition when Redis has none, or checks that it was made with the same settings.
-- KEYS    1 meta, 2 accounts, 3 outbox
-- ARGV    1 schema, 2 decimal_places, 3 partitions, 4 create (1 | 0)
-- Answers opened | present | missing (nothing there, and not to be created) | lost (data without a meta key)
--         | mismatch name value
-- Writes  meta
local fields = redis.call('HMGET', KEYS[1], 'schema', 'decimal_places', 'partitions')
if fields[1] then
  for i, name in ipairs({ 'schema', 'decimal_places', 'partitions' }) do
    if fields[i] ~= ARGV[i] then return 'mismatch ' .. name .. ' ' .. tostring(fields[i]) end
  end
  return 'present'
end
if redis.call('EXISTS', KEYS[2]) + redis.call('EXISTS', KEYS[3]) > 0 then return 'lost' end
if ARGV[4] ~= '1' then return 'missing' end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'decimal_places', ARGV[2], 'partitions', ARGV[3], 'state', 'open',
  'epoch', '1', 'seq', '0', 'head', '-', 'recent', 'a', 'recent_since', now)
return 'opened'
