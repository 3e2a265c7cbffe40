-- Makes a partition when Redis has none, or checks that it is the one that the store knows and that its settings agree.
-- KEYS    1 meta, 2 accounts, 3 outbox
-- ARGV    1 schema, 2 decimal_places, 3 partitions, 4 create | check (make nothing: the store cannot be
--         asked now) | rebuild (closed for a rebuild of the epoch, whatever it is now),
--         then the store's watermark (all 0 and "-" where it has none): 5 epoch, 6 seq, 7 head
-- Answers opened | present | lost (the store or Redis itself knows of a history that Redis no longer has; closed)
--         | mismatch name value
-- Writes  meta
local fields = redis.call('HMGET', KEYS[1], 'schema', 'decimal_places', 'partitions', 'epoch', 'seq', 'head', 'state',
  'flushed')
local epoch, seq, head, rebuild = ARGV[5] + 0, ARGV[6] + 0, ARGV[7], ARGV[4] == 'rebuild'

-- Whether the history goes on differently from where the store has it. "?" is the head of an entry that nobody can read.
local function forked()
  local at = fields[5] + 0
  if seq > at then return true end
  if seq == at then return head ~= fields[6] and head ~= '?' end
  local following = redis.call('XRANGE', KEYS[3], string.format('%.0f-0', seq + 1), '+', 'COUNT', 1)[1]
  local prev = following and following[1] == string.format('%.0f-0', seq + 1) and
    string.match(following[2][2], '^%[%d+,%d+,%d+,"([^"]*)"')
  if prev then return prev ~= head and head ~= '?' end
  return not following or (fields[8] or '0') + 0 <= seq -- gone without having been in the store
end

if fields[1] then
  for i, name in ipairs({ 'schema', 'decimal_places', 'partitions' }) do
    if fields[i] ~= ARGV[i] then return 'mismatch ' .. name .. ' ' .. fields[i] end
  end
  if rebuild and epoch < fields[4] + 0 then return 'lost' end -- a later rebuild has it
end
if fields[1] and not rebuild then
  if fields[7] ~= 'open' then return 'lost' end
  if seq == 0 then return 'present' end
  if epoch < fields[4] + 0 then return 'lost' end -- rebuilt since the store was asked, or the store went back
  if epoch > fields[4] + 0 or forked() then
    redis.call('HSET', KEYS[1], 'state', 'lost')
    return 'lost'
  end
  return 'present'
end
if not rebuild then
  if redis.call('EXISTS', KEYS[2]) + redis.call('EXISTS', KEYS[3]) > 0 then return 'lost' end
  if ARGV[4] == 'check' or seq > 0 then return 'lost' end
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HDEL', KEYS[1], 'full')
redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'decimal_places', ARGV[2], 'partitions', ARGV[3], 'recent', 'a',
  'recent_since', now, 'state', rebuild and 'rebuilding' or 'open', 'epoch', rebuild and ARGV[5] or '1',
  'seq', ARGV[6], 'head', head, 'flushed', ARGV[6])
return 'opened'
