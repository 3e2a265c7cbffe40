-- The program: applies a batch of operations of one partition, in order, as one unit of work.
--
-- Answers one text: the first line says what became of the batch, then one line for each operation.
--   done       applied now          stored  applied before; these are the answers of then (the sender lost a reply)
--   undone     "atomic", and an operation was refused, "keyed", and a key was used for another body (all lines say so then),
--              or "trial": nothing was written
--   stale      an older batch of this sender than the last one: not applied
--   late       it came when its callers had been told that it was not done: not applied; then Redis' clock
--   never      asked what became of a batch: it was not applied, and will not be
--   refused    missing | schema | closed | lost | rebuilding, and why: the partition cannot be served; nothing was read as zero
-- done, stored, undone and never are followed by epoch, seq and head of the last transaction, for the sender to remember
-- (state/history.lua), and by Redis' own clock.
-- An operation's line is "0 " or "1 " (1: the stored answer of an earlier call with the same key), then its answer; that of a
-- plain one (plain/account.lua) begins with a letter.

local refused = false -- or true, or "keyed"

local function run(name, at)
  local key = current_key
  if key == '' then return operations[name](at) end
  local first = recent('k ' .. key)
  if first then
    local answer = replay(first)
    if answer == '0 key_reused' then
      -- Two partitions that are one now may both have known the key: meter/store/repeats.py.
      local other = recent('k also ' .. current_fingerprint .. ' ' .. key)
      if other then return replay(other) end
      refused = 'keyed'
    end
    return answer
  end
  local answer = operations[name](at)
  if sub(answer, 1, 3) == 'ok ' then
    remember_answer('k ', key, current_fingerprint, answer .. (levels and levels.behind or ''))
  end
  return answer
end

for n = number, count do
  take_caller(at + 2)
  local answer = api_keys.refusal or run(ARGV[at], at + 3)
  local first = sub(answer, 1, 1)
  if first == 'o' then answer = '0 ' .. answer end
  if levels and levels.behind then answer, levels.behind = answer .. levels.behind, nil end
  if first == '0' then refused = refused or true end
  answers[n] = answer
  at = at + 2 + ARGV[at + 1]
end
if refused == ARGV[3] then
  for n = 1, count do answers[n] = '0 key_reused' end
end
local text = concat(answers, '\n')
if ARGV[3] == 'trial' or refused and ARGV[3] == 'atomic' or refused == ARGV[3] then
  return format('undone %s %s %s %d\n', epoch, fields[4], fields[5], server_ms) .. text
end
remember_batch(text)
write_all()
return format('done %s %d %s %d\n', epoch, seq, head, server_ms) .. text
