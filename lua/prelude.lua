-- What every program starts with: the keys, the clock, exact numbers, what ended lately.
--
-- The whole call is one unit of work: operations read, decide and change tables in memory, and state/write.lua (plain/run.lua)
-- puts the result into Redis at the end. A fault before that leaves nothing half done, as Redis does not roll a script back.
--
-- KEYS  1 meta      hash: schema (behind a / how many partitions, once that was changed), before (how many there were), state,
--                    why (closed), acknowledged (seq that a sender was told, where it is more than Redis has), epoch, seq, head,
--                    decimal_places, partitions, clock_ms, recent, recent_since, recent_seq, flushed, full, sentinels, ledger
--                    (its id, as in the store), rules (how many levels have some), waited (is written before WAIT, no more)
--       2 accounts  hash: user_id -> packed account with its front grant (state/account.lua)
--       3 grants    hash: "user_id grant_id" -> packed grant, all but front grants (state/grant.lua)
--       4 order     lexical set: "user_id class sort-key grant_id", all but front grants (state/order.lua)
--       5 holds     hash: reservation_id -> packed open hold (state/hold.lua)
--       6 agenda    lexical set: "user_id time kind id", what falls due and when (state/agenda.lua)
--       7 due       sorted set: user_id by the time of its next due thing, for the sweeper
--       8, 9 recent hashes, rotated by age: stored answers, finished holds, refunds, answers to senders
--      10 outbox    stream: one entry per call that books, id = last seq-0 (state/outbox.lua)
--      11 profiles  hash: user_id -> metadata as JSON text
--      12 rates     hash: what rate cards and accounts say of prices (state/price.lua)
--      13 keys      hash: key_id -> what an API key may do (state/api_keys.lua)
--      14 rules, 15 counters, 16 calendar  hashes: of levels and time zones (state/level.lua, state/calendar.lua)
--      None of them is ever empty (state/sentinel.lua), so one that is not there was lost.
--
-- ARGV  1 sender  2 batch number  3 "each" | "atomic" | "keyed" | "trial" (writes nothing) | "repair" (of a closed partition)
--          | "ask" (what became of the batch; from now on nothing will)
--       4 partition  5 late_commit_grace_ms  6 reservations_max  7 grants_max  8 recent_window_ms  9 outbox_max
--       10 number of operations
--       11 epoch, 12 seq, 13 head of the last transaction that the sender was told of (0 0 "-": of none)
--       14 1: look for it in the outbox, where others have gone on since
--       15 when nothing of the batch may be begun any more, by Redis' own clock, because its callers are told by then that
--          it was not done (0: at any time)
--       then each operation: name, number of arguments, its caller's part ("", or three lines: key, fingerprint, extra, which
--       are JSON members without braces), and its own arguments; then API keys (state/api_keys.lua)

local META, ACCOUNTS, GRANTS, ORDER, HOLDS, AGENDA = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local DUE, RECENT_A, RECENT_B, OUTBOX, PROFILES, RATES = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local api_keys = { ALL = KEYS[13], mark = '', writes = {} } -- mark: what a hold keeps of the one at hand (state/api_keys.lua)
local format, match, gmatch, concat, byte, sub, gsub = string.format, string.match, string.gmatch,
  table.concat, string.byte, string.sub, string.gsub

local SCHEMA = '2'
local AMOUNT_MAX = 9007199254740991 -- 2^53 - 1, the last integer that a Lua number counts exactly
local NEVER = 9999999999999 -- the year 2286; keeps every time at 13 digits

local sender, batch, partition = ARGV[1], ARGV[2] + 0, ARGV[4]
local late_commit_grace_ms, reservations_max, grants_max, recent_window_ms = ARGV[5] + 0, ARGV[6] + 0, ARGV[7] + 0, ARGV[8] + 0
local outbox_max = ARGV[9] + 0
local paths = { RULES = KEYS[14], COUNTERS = KEYS[15], CALENDAR = KEYS[16], terms = {}, counters = {} } -- state/path.lua

local fields = redis.call('HMGET', META, 'schema', 'state', 'epoch', 'seq', 'head', 'clock_ms', 'recent', 'recent_since',
  'flushed', 'full', 'rules')
if not fields[1] or not fields[4] then return 'refused missing meta' end -- a lost Redis is not an empty one
if fields[1] ~= SCHEMA and fields[1] ~= SCHEMA_OF_MOVED then return 'refused schema' end
local epoch, seq, head = fields[3], fields[4] + 0, fields[5]
local frozen_ms, recent_since = fields[6], fields[8] + 0
local flushed, full = (fields[9] or '0') + 0, fields[10] == '1' -- the store has all up to that seq; the outbox is full
local is_ruled = (fields[11] or '0') ~= '0' -- whether any level has rules: else none is looked up
local RECENT, OLDER = RECENT_A, RECENT_B
if fields[7] == 'b' then RECENT, OLDER = RECENT_B, RECENT_A end
-- Redis' clock, read once; a test clock in meta stands in for it.
local time = redis.call('TIME')
local server_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now = frozen_ms and frozen_ms + 0 or server_ms
local operations = {} -- name -> function(index of its first own argument in ARGV) -> answer
local OPERATIONS_FROM = 16

-- The names of this batch's operations: what no batch asks for is not even made (meter/engine/programs.py).
local wanted = {}
do
  local at = OPERATIONS_FROM
  for _ = 1, ARGV[10] + 0 do
    wanted[ARGV[at]] = true
    at = at + 2 + ARGV[at + 1]
  end
  api_keys.from = at
end
local current_key, current_fingerprint, current_extra = '', '', '' -- of the operation that is being run

local function take_caller(at)
  if ARGV[at] == '' then
    current_key, current_fingerprint, current_extra = '', '', ''
  else
    current_key, current_fingerprint, current_extra = match(ARGV[at], '^([^\n]*)\n([^\n]*)\n(.*)$')
  end
end

-- What the first argument of a wanted operation names, user or reservation, so that batch.lua reads these in two calls; from
-- the declarations of the operations (meter/engine/programs.py).
local subjects = {}

-- Byte order, as in Redis' lexical sets: Lua's own < follows the server's locale.
local function before(x, y)
  for i = 1, math.min(#x, #y) do
    local p, q = byte(x, i), byte(y, i)
    if p ~= q then return p < q end
  end
  return #x < #y
end

local recent_writes = {} -- field -> text
local function recent(field)
  return recent_writes[field] or redis.call('HGET', RECENT, field) or redis.call('HGET', OLDER, field)
end

local function remember_answer(kind, id, fingerprint, answer)
  recent_writes[kind .. id] = fingerprint .. ' ' .. answer
end

-- The answer to a call with a key that was used before: the first answer for the same body, a refusal for another.
local function replay(first)
  local fingerprint, answer = match(first, '^(%S+) (.*)$')
  if fingerprint ~= current_fingerprint then return '0 key_reused' end
  return '1 ' .. answer
end

-- Whether the outbox holds as much as it may, so that spending has to wait for the store. Commits and releases go on.
-- Once full it stays so until the flush has brought it down a tenth (operations/flushed.lua).
local function outbox_full()
  return outbox_max > 0 and (full or seq - flushed >= outbox_max)
end
