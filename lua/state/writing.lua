-- How the write section puts things into Redis (state/write.lua). No command here can fail on sound data.

local WRITE_PAGE = 1000 -- arguments per command; unpack fails at about 8,000

local function write_paged(command, key, arguments)
  for first = 1, #arguments, WRITE_PAGE do
    redis.call(command, key, unpack(arguments, first, math.min(first + WRITE_PAGE - 1, #arguments)))
  end
end

-- Members of a lexical set: true adds, false removes.
local function write_members(key, writes)
  local added, removed = {}, {}
  for member, present in pairs(writes) do
    if present then
      added[#added + 1], added[#added + 2] = '0', member
    else
      removed[#removed + 1] = member
    end
  end
  write_paged('ZADD', key, added)
  write_paged('ZREM', key, removed)
end

-- Fields of a hash: a text sets, false removes.
local function write_fields(key, writes)
  local set, gone = {}, {}
  for field, text in pairs(writes) do
    if text then
      set[#set + 1], set[#set + 2] = field, text
    else
      gone[#gone + 1] = field
    end
  end
  write_paged('HSET', key, set)
  write_paged('HDEL', key, gone)
end

local plain_users, plain_holds, plain_due = {}, {}, {} -- what the plain case changed: names, and user_id -> next_due

-- Puts what the plain case decided into Redis; what the full program made of it since comes after.
local function write_plain()
  local set, due = {}, {}
  for user in pairs(plain_users) do set[#set + 1], set[#set + 2] = user, account_texts[user] end
  for user, time in pairs(plain_due) do due[#due + 1], due[#due + 2] = format('%d', time), user end
  write_paged('HSET', ACCOUNTS, set)
  write_paged('ZADD', DUE, due)
  write_fields(HOLDS, plain_holds)
  plain_users, plain_holds, plain_due = {}, {}, {}
end

-- Writes the rows as one entry of the outbox: its id is the last seq, its first line what they have in common.
--   1 version  2 epoch  3 seq of the first row  4 prev (transaction_id of the seq before it)  5 partition  6 sender  7 batch
--   8 created_at_ms; the transaction_id of a row is "partition-seq-sender-batch"
local function write_rows()
  head = transaction_of(seq)
  redis.call('XADD', OUTBOX, format('%d-0', seq), 'e', format('[2,%s,%d,"%s",%s,"%s",%s,%d]\n', epoch, first_row, prev, partition,
    sender, ARGV[2], now) .. concat(rows, '\n'))
  redis.call('HSET', META, 'seq', format('%d', seq), 'head', head)
  rows, first_row, prev = {}, seq + 1, head
end

local booked = false -- whether this call wrote what must not be done twice, so that its sender needs the answer again

-- Puts the agenda, what is remembered and the rows of the outbox into Redis, last of all.
local function write_ends()
  booked = booked or rows[1] ~= nil or next(recent_writes) ~= nil
  if next(agenda_writes) then write_members(AGENDA, agenda_writes) end
  if next(recent_writes) then write_fields(RECENT, recent_writes) end
  if rows[1] then write_rows() end
  agenda_writes, recent_writes = {}, {}
end

-- The sender's number and its answers, for a batch whose reply is lost.
local function remember_batch(text)
  if booked or rows[1] or next(recent_writes) then
    recent_writes['l ' .. sender], recent_writes['a ' .. sender] = format('%d', batch), text
  end
end
