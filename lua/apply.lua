-- The program: applies a batch of operations of one partition, in order, as one unit of work.
--
-- Answers one text: the first line says what became of the batch, then one line for each operation.
--   done       applied now          stored  applied before; these are the answers of then (the sender lost a reply)
--   undone     "atomic", and an operation was refused, or "trial": nothing was written
--   stale      an older batch of this sender than the last one: not applied
--   late       it came when its callers had been told that it was not done: not applied; then Redis' clock
--   never      asked what became of a batch: it was not applied, and will not be
--   refused    missing | schema | closed | lost | rebuilding, and why: the partition cannot be served; nothing was read as zero
-- done, stored, undone and never are followed by epoch, seq and head of the last transaction, for the sender to remember
-- (state/history.lua), and by Redis' own clock.
-- An operation's line is "0 " or "1 " (1: the stored answer of an earlier call with the same key), then its answer.

-- Reads accounts and holds of all operations in two calls.
local function read_ahead()
  local users, ids, at = {}, {}, OPERATIONS_FROM
  for _ = 1, ARGV[10] + 0 do
    local subject = subjects[ARGV[at]]
    if subject == 'user' then users[#users + 1] = ARGV[at + 5] end
    if subject == 'reservation' then ids[#ids + 1] = ARGV[at + 5] end
    at = at + 2 + ARGV[at + 1]
  end
  if #ids > 0 then
    for n, text in ipairs(redis.call('HMGET', HOLDS, unpack(ids))) do
      hold_texts[ids[n]] = text
      if text then users[#users + 1] = match(text, '^%S+') end
    end
  end
  if #users > 0 then
    for n, text in ipairs(redis.call('HMGET', ACCOUNTS, unpack(users))) do account_texts[users[n]] = text end
  end
end

local function run(name, at)
  local key = current_key
  if key == '' then return operations[name](at) end
  local first = recent('k ' .. key)
  if first then return replay(first) end
  local answer = operations[name](at)
  if sub(answer, 1, 3) == 'ok ' then remember_answer('k ', key, current_fingerprint, answer) end
  return answer
end

local sent_before = recent('l ' .. sender)
if sent_before then
  local last, stored = match(sent_before, '^(%d+)\n(.*)$')
  if last + 0 == batch then return format('stored %s %.0f %s %.0f\n', epoch, seq, head, server_ms) .. stored end
  if last + 0 > batch then return 'stale' end
end
if ARGV[3] == 'ask' then
  recent_writes['l ' .. sender] = format('%.0f\n', batch + 1)
  write_all()
  return format('never %s %.0f %s %.0f', epoch, seq, head, server_ms)
end
if ARGV[15] + 0 > 0 and server_ms >= ARGV[15] + 0 then return format('late %.0f', server_ms) end

read_ahead()
local answers, refused, at = {}, false, OPERATIONS_FROM
for n = 1, ARGV[10] + 0 do
  current_key, current_fingerprint, current_extra = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local answer = run(ARGV[at], at + 5)
  local first = sub(answer, 1, 1)
  if first == 'o' then answer = '0 ' .. answer end
  if first == '0' then refused = true end
  answers[n] = answer
  at = at + 2 + ARGV[at + 1]
end
answers = concat(answers, '\n')
if ARGV[3] == 'trial' or refused and ARGV[3] == 'atomic' then
  return format('undone %s %s %s %.0f\n', epoch, fields[4], fields[5], server_ms) .. answers
end
if booked or #entries > 0 or next(recent_writes) then recent_writes['l ' .. sender] = format('%.0f\n', batch) .. answers end
write_all()
return format('done %s %.0f %s %.0f\n', epoch, seq, head, server_ms) .. answers
