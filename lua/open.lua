-- Makes a partition when Redis has none, or checks that it is the one that the store knows, that nothing of it is gone and
-- that its settings agree.
-- KEYS    those of prelude.lua
-- ARGV    1 schema, 2 decimal_places, 3 partitions, 4 create | check (make nothing: the store cannot be
--         asked now) | rebuild (closed for a rebuild of the epoch, whatever it is now) | replace (a rebuild that
--         takes another ledger's place, too),
--         then the store's watermark (all 0 and "-" where it has none): 5 epoch, 6 seq, 7 head,
--         8 the id of its ledger ("" where nobody can tell, "-" where there is no store),
--         9 for a rebuild: how many partitions there were before `meter repartition`, one time after the other ("" = there
--         were always as many)
-- Answers opened | present before (as in 9) | lost why (the store or Redis itself knows of a history that Redis no longer
--         has; closed)
--         | mismatch name value | unfit (this server's scripts cannot write amounts)
--         | foreign id (the partition is another ledger's, "-" where its name is not known; nothing was changed)
-- Writes  meta, and the sentinels of every key
local META, ACCOUNTS, GRANTS, ORDER, HOLDS, AGENDA = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local DUE, OUTBOX = KEYS[7], KEYS[10]
local fields = redis.call('HMGET', META, 'schema', 'decimal_places', 'partitions', 'epoch', 'seq', 'head', 'state',
  'flushed', 'sentinels', 'why', 'ledger', 'before')
local epoch, seq, head = ARGV[5] + 0, ARGV[6] + 0, ARGV[7]
-- What meta says of sentinels, and the first key that has none where it says that: before there were rates, keys, rules.
local SENTINELS_VERSION, SENTINELS_OF = '4', { ['1'] = 12, ['2'] = 13, ['3'] = 14 }
local replace, rebuild, ledger = ARGV[4] == 'replace', ARGV[4] == 'rebuild' or ARGV[4] == 'replace', ARGV[8] or ''
local is_moved = rebuild and (ARGV[9] or '') ~= ''
local storeless = ledger == '-'
if storeless then ledger = '' end

-- Amounts are written by %d, which a 32-bit server cuts off.
if string.format('%d', 9007199254740991) ~= '9007199254740991' then return 'unfit' end

local function close(why)
  redis.call('HSET', META, 'state', 'lost', 'why', why)
  return 'lost ' .. why
end

-- Whether the partition is another ledger's: by its name, or, where it was made before ledgers had one, because a store
-- had some of it and this one has nothing. Without a store, each that a store has ever had is: what is spent would be in
-- its outbox, and never be flushed.
local function foreign()
  if storeless then return fields[11] or (fields[8] or '0') ~= '0' end
  if ledger == '' then return false end
  if fields[11] then return fields[11] ~= ledger end
  return seq == 0 and (fields[8] or '0') ~= '0'
end

-- Whether the history goes on differently from where the store has it. "?" is the head of an entry that nobody can read.
local function forked()
  local at = fields[5] + 0
  if seq > at then return true end
  if seq == at then return head ~= fields[6] and head ~= '?' end
  local _, prev = told_of(OUTBOX, seq + 1)
  if prev then return prev ~= head and head ~= '?' end
  return redis.call('XRANGE', OUTBOX, string.format('%d-0', seq + 1), '+', 'COUNT', 1)[1] == nil
    or (fields[8] or '0') + 0 <= seq -- gone without having been in the store
end

-- What is gone of a partition that was made before there were sentinels, as far as the other keys tell.
local function contradicted()
  local function has(key) return redis.call('EXISTS', key) == 1 end
  if fields[5] ~= '0' and not has(ACCOUNTS) then return 'accounts' end
  if fields[5] + 0 > (fields[8] or '0') + 0 and not has(OUTBOX) then return 'outbox' end
  if has(GRANTS) ~= has(ORDER) then return has(GRANTS) and 'order' or 'grants' end
  if has(HOLDS) and not has(AGENDA) then return 'agenda' end
  if has(AGENDA) and not has(DUE) then return 'due' end
end

if fields[1] then
  local is_older = fields[1] == '1' and ARGV[1] == '2' -- accounts are read as either has them, and entries of the outbox too
  if is_older then fields[1] = ARGV[1] end
  fields[1] = string.match(fields[1], '^(%d+)/%d+$') or fields[1]
  for i, name in ipairs({ 'schema', 'decimal_places', 'partitions' }) do
    local is_other = fields[i] ~= ARGV[i] and not (is_moved and name == 'partitions')
    if is_other then return 'mismatch ' .. name .. ' ' .. fields[i] end
  end
  if foreign() and not replace then return 'foreign ' .. (fields[11] or '-') end
  if rebuild and epoch < fields[4] + 0 then return 'lost to a later rebuild' end
  if is_older then redis.call('HSET', META, 'schema', ARGV[1]) end
end
if fields[1] and not rebuild then
  if fields[7] ~= 'open' then return 'lost ' .. (fields[10] or fields[7]) end
  for number = SENTINELS_OF[fields[9] or ''] or #KEYS + 1, #KEYS do plant_sentinel(number) end -- made before there were these
  local missing = fields[9] and names_of_gone() or contradicted() or ''
  if missing ~= '' then return close('missing ' .. missing) end
  if not fields[9] then
    plant_sentinels()
    redis.call('HSET', META, 'recent_seq', fields[5])
  end
  if fields[9] ~= SENTINELS_VERSION then redis.call('HSET', META, 'sentinels', SENTINELS_VERSION) end
  if seq > 0 and epoch < fields[4] + 0 then return 'lost to a later rebuild' end -- since the store was asked, or it went back
  if seq > 0 and (epoch > fields[4] + 0 or forked()) then
    if ledger ~= '' and not fields[11] and (fields[8] or '0') == '0' then return 'foreign -' end -- no store had any of it
    return close(string.format('behind %d %d %s in the store, at %s %s %s', epoch, seq, head, fields[4], fields[5],
      fields[6]))
  end
  if ledger ~= '' and not fields[11] then redis.call('HSET', META, 'ledger', ledger) end
  return 'present' .. (fields[12] and ' ' .. fields[12] or '')
end
if not rebuild then
  if redis.call('EXISTS', unpack(KEYS)) > 0 then return 'lost missing meta' end
  if ARGV[4] == 'check' or seq > 0 then return 'lost missing meta' end
end
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HDEL', META, 'full', 'why', 'acknowledged')
redis.call('HSET', META, 'schema', ARGV[1], 'decimal_places', ARGV[2], 'partitions', ARGV[3], 'recent', 'a',
  'recent_since', now, 'state', rebuild and 'rebuilding' or 'open', 'epoch', rebuild and ARGV[5] or '1',
  'seq', ARGV[6], 'head', head, 'flushed', ARGV[6], 'sentinels', SENTINELS_VERSION,
  'recent_seq', ARGV[6])
if ledger ~= '' then redis.call('HSET', META, 'ledger', ledger) end
if is_moved then redis.call('HSET', META, 'schema', ARGV[1] .. '/' .. ARGV[3], 'before', ARGV[9]) end
plant_sentinels()
return 'opened'
