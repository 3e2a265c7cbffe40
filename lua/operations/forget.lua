-- Forgets what the recent hashes and the outbox have of a name that an account had before (operations/anonymise.lua). A key
-- that was used for it refuses every body from then on; what other users have in the same answers stays. A rebuild in between
-- has made the account anew, as one that nothing ever happened to: it goes.
-- ARGV    user_id, pseudonym, trim_to_seq (up to which the store has all), fields (how many);
--         then each of the fields: field
-- Answers ok trimmed (0 | 1: no entry of up to there is left; one that goes on behind it waits until the store has all of it)
-- Writes  accounts, order, recent, outbox
local function without_name(text, user, pseudonym)
  return (gsub(text, '[^ \n,]+', function(word) return string.find(word, user, 1, true) and pseudonym end))
end

local function forget_field(key, field, user, pseudonym)
  local text, kind = redis.call('HGET', key, field), sub(field, 1, 2)
  if not text then return end
  if kind == 'a ' then
    redis.call('HSET', key, field, without_name(text, user, pseudonym))
  elseif (kind == 'k ' or kind == 'c ') and not string.find(field, user, 1, true) then
    redis.call('HSET', key, field, '- -')
  else
    redis.call('HDEL', key, field)
  end
end

-- The first entry that begins at or before a seq and ends there or later, as its last seq; that seq where there is none.
local function last_of_entry_with(seq_of_name)
  local entry = redis.call('XRANGE', OUTBOX, format('%d-0', seq_of_name), '+', 'COUNT', '1')[1]
  local first = entry and match(entry[2][2], '^%[%d+,%d+,(%d+)')
  return first and first + 0 <= seq_of_name and match(entry[1], '^%d+') + 0 or seq_of_name
end

function operations.forget(i)
  write_all()
  local user, pseudonym, trim_to = ARGV[i], ARGV[i + 1], last_of_entry_with(ARGV[i + 2] + 0)
  for n = i + 4, i + 3 + ARGV[i + 3] do
    forget_field(RECENT, ARGV[n], user, pseudonym)
    forget_field(OLDER, ARGV[n], user, pseudonym)
  end
  local text, profile = redis.call('HGET', ACCOUNTS, user), redis.call('HGET', PROFILES, user)
  if text == pack_account(new_account(user)) and not profile then
    redis.call('HDEL', ACCOUNTS, user)
    redis.call('ZREM', ORDER, ' ' .. user)
  end
  if trim_to > 0 then redis.call('XTRIM', OUTBOX, 'MINID', format('%d-0', math.min(trim_to, flushed) + 1)) end
  return format('ok %d', trim_to <= flushed and 1 or 0)
end
