-- Holds an amount: it leaves the grants now and waits in a reservation for commit, release or its end.
-- ARGV    user_id, reservation_id, amount, ttl_ms, chosen (1: the caller chose the id | 0 | request: the id stands for a
--         request, and an open hold of that id for the same request, asked again), at_end (what becomes of it when nobody
--         settles it: release | charge | confirm: charge, once `confirm` says that its caller was told)
-- Answers ok user_id reservation_id amount expires_at_ms expires_in_ms | insufficient user_id required violations
--         | budget_reached user_id required violations | suspended violations | rate_limited violations | too_many; then the
--         balances | key_reused | outbox_full | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, counters, recent, outbox (reserve, extend)

-- The hold of a request that asks again lives on from now. It ends later than before, so that whoever takes it back for an
-- earlier asking finds that it is not his alone any more (operations/withdraw.lua). Nothing when there is none.
local function hold_of_request(user, id, amount, ttl_ms)
  local hold = hold_of(id)
  local a = hold and account_of(hold.user)
  hold = hold_of(id) -- settling may have ended it
  if hold then
    local held = pools.held(hold)
    if hold.user ~= user or pools.total(held) ~= amount then return '0 key_reused' end
    return '1 ' .. pools.prolong(held, math.max(now + ttl_ms, hold.ends + 1), current_key, current_extra)
  end
  local past = finished(id)
  return past and refuse_finished(past)
end

-- Who has no credits and holds none pays nothing, and may be anybody: such holds are refused while the partition has as
-- many holds as one account may have, so that nobody fills Redis with them.
local function is_crowded_for(a)
  return a.available + only.free(a) == 0 and redis.call('HLEN', HOLDS) > reservations_max -- one is no hold (state/sentinel.lua)
end

function operations.reserve(i)
  local user, id, amount, ttl_ms, chosen = ARGV[i], ARGV[i + 1], ARGV[i + 2] + 0, ARGV[i + 3] + 0, ARGV[i + 4]
  local at_end = ARGV[i + 5]
  if chosen == 'request' then
    local answer = hold_of_request(user, id, amount, ttl_ms)
    if answer then return answer end
  elseif chosen == '1' then
    local first = recent('c ' .. id)
    if first then return replay(first) end
    if hold_of(id) or finished(id) then return '0 key_reused' end
  end
  local a = account_of(user)
  local refused = admission.refuse_suspended(a)
  if refused then return refused end
  if outbox_full() then return '0 outbox_full' end
  local payers = pools.of_hold(a, id, only.purpose(i))
  local available = pools.available(payers)
  local ask = {
    amount = amount, required = amount, short = amount > available, spendable = available, requests = 1, holds = 1,
    purpose = payers.purpose,
  }
  refused = admission.refuse(a, ask)
  if refused then return refused end
  local is_crowded = a.hold_count >= reservations_max or amount == 0 and (is_crowded_for(a) or not admit(a))
  if is_crowded then return '0 too_many' .. balances(a) end

  local hold = {
    id = id, user = user, amount = 0, ends = now + ttl_ms, created = now, charged_at_end = at_end == 'charge',
    unconfirmed = at_end == 'confirm', draws = {}, key = api_keys.mark ~= '' and sub(api_keys.mark, 3) or nil,
    tags = payers.purpose.tags ~= '' and payers.purpose.tags or nil,
  }
  holds[id] = hold
  a.hold_count = a.hold_count + 1
  if levels then levels.buckets.take(user, ask) end
  schedule(a, hold.ends, 'h', id)
  local shares = pools.shares(payers, amount, 0)
  local rows_of = pools.hold_more({ { a = a, hold = hold } }, shares, true)
  local answer = pools.record(user, rows_of, now, function()
    return format('ok %s %s %d %d %d', user, id, amount, hold.ends, ttl_ms)
      .. balances(a, shares.purpose) .. pools.told(shares)
  end, current_key, current_extra)
  if chosen == '1' then remember_answer('c ', id, current_fingerprint, answer .. (levels and levels.behind or '')) end
  return answer
end
