-- Gives an account that nothing is left of, and that is open for nothing, another name; what named the old one is dropped.
-- The entry says which name it was, so that the flush does the same (meter/ledger/fold.py).
-- ARGV    user_id, pseudonym, token (what the name is known by for a window, to a call that is repeated)
-- Answers ok user_id (the pseudonym) | live user_id reservations scheduled; then the balances | not_found
-- Writes  accounts, grants, order, agenda, due, profiles, rates, rules, counters, recent, outbox (account)

local function drop(user)
  local of_user, behind = '[' .. user .. ' ', '(' .. user .. '!'
  local members, grants = redis.call('ZRANGEBYLEX', ORDER, of_user, behind), {}
  for n, member in ipairs(members) do grants[n] = user .. ' ' .. match(member, '(%S+)$') end
  write_paged('HDEL', GRANTS, grants)
  write_paged('ZREM', ORDER, members)
  write_paged('ZREM', AGENDA, redis.call('ZRANGEBYLEX', AGENDA, of_user, behind))
  redis.call('ZREM', DUE, user)
  redis.call('HDEL', PROFILES, user)
  redis.call('HDEL', RATES, 'u ' .. user)
  redis.call('HDEL', paths.CALENDAR, 'p ' .. user)
  if levels then levels.drop(user) end
  redis.call('HDEL', ACCOUNTS, user)
  accounts[user], account_texts[user] = nil, false
end

local function under_pseudonym(old, pseudonym)
  local a = new_account(pseudonym)
  a.granted, a.expired, a.voided = old.granted, old.expired, old.voided
  accounts[pseudonym] = a
  order_writes[' ' .. old.user] = false
  if is_stranger(a) then order_writes[' ' .. pseudonym] = true end
  change_account(a)
  return a
end

function operations.anonymise(i)
  local user, pseudonym, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if accounts[pseudonym] or redis.call('HGET', ACCOUNTS, pseudonym) then return format('1 ok %s 0 0 0', pseudonym) end
  if not accounts[user] and not account_texts[user] then
    return recent('k ' .. token) and format('1 ok %s 0 0 0', pseudonym) or '0 not_found'
  end
  local old = figures_of(account_of(user))
  if old.available + only.free(old) + old.reserved + old.debt + old.scheduled + old.hold_count > 0 then
    return format('0 live %s %d %d', user, old.hold_count, old.scheduled) .. balances(old)
  end
  write_all() -- what was due; nothing of the old name is pending behind it
  drop(user)
  local a = under_pseudonym(old, pseudonym)
  record(a, 'account', 0, {}, now, format('%s,"was":"%s"', settings_of(a), user), nil, current_extra)
  remember_answer('k ', token, '-', '-')
  return format('ok %s', pseudonym) .. balances(a)
end
