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

local booked = false -- whether this call wrote what must not be done twice, so that its sender needs the answer again

-- Puts the agenda, what is remembered and the entries of the outbox into Redis, last of all.
local function write_ends()
  booked = booked or entries[1] ~= nil or next(recent_writes) ~= nil
  if next(agenda_writes) then write_members(AGENDA, agenda_writes) end
  if next(recent_writes) then write_fields(RECENT, recent_writes) end
  for i = 1, #entries, 2 do redis.call('XADD', OUTBOX, entries[i], 'e', entries[i + 1]) end
  if entries[1] then redis.call('HSET', META, 'seq', format('%d', seq), 'head', head) end
  agenda_writes, recent_writes, entries = {}, {}, {}
end

-- The sender's number and its answers, for a batch whose reply is lost.
local function remember_batch(text)
  if booked or entries[1] or next(recent_writes) then
    recent_writes['l ' .. sender], recent_writes['a ' .. sender] = format('%d', batch), text
  end
end
