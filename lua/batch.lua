-- The batch: whether it was applied already or comes too late, and what it touches, read in two calls.

local sent = recent('l ' .. sender) -- the number of this sender's last batch; 'a' has its answers
if sent == format('%d', batch) then
  return format('stored %s %d %s %d\n', epoch, seq, head, server_ms) .. recent('a ' .. sender)
end
if sent and sent + 0 > batch then return 'stale' end
if ARGV[3] == 'ask' then
  redis.call('HSET', RECENT, 'l ' .. sender, format('%d', batch + 1), 'a ' .. sender, '')
  return format('never %s %d %s %d', epoch, seq, head, server_ms)
end
if ARGV[15] + 0 > 0 and server_ms >= ARGV[15] + 0 then return format('late %d', server_ms) end

local account_texts = {} -- user_id -> text, or false where there is none; as of now, changes of this call included
local hold_texts = {} -- reservation_id -> text, or false where there is none; likewise
local rows, first_row, prev = {}, seq + 1, head -- of the outbox, still to be written; the seq of the first; what that follows
local agenda_writes = {} -- member -> true to add, false to remove

local count = ARGV[10] + 0
do
  local users, ids, at = {}, {}, OPERATIONS_FROM
  for _ = 1, count do
    local subject = subjects[ARGV[at]]
    if subject == 'user' then users[#users + 1] = ARGV[at + 3] end
    if subject == 'reservation' then ids[#ids + 1] = ARGV[at + 3] end
    at = at + 2 + ARGV[at + 1]
  end
  if ids[1] then
    for n, text in ipairs(redis.call('HMGET', HOLDS, unpack(ids))) do
      hold_texts[ids[n]] = text
      if text then users[#users + 1] = match(text, '^%S+') end
    end
  end
  if users[1] then
    for n, text in ipairs(redis.call('HMGET', ACCOUNTS, unpack(users))) do account_texts[users[n]] = text end
    if is_ruled then paths.read_of(users, account_texts) end
  end
end

-- The operations of the batch in turn: where the next one starts, its number, and the answers so far.
local answers, number, at = {}, 1, OPERATIONS_FROM

-- The id of a transaction of this call: it names the sender and batch, so that two histories of one seq never share an id.
local function transaction_of(number_in_history)
  return format('%s-%d-%s-%s', partition, number_in_history, sender, ARGV[2])
end

local function join(some, more)
  return some == '' and more or more == '' and some or some .. ',' .. more
end
