-- Gives an open reservation more time, counted from now, or more credits.
-- ARGV    reservation_id, ttl_ms ("" = leave), add_amount
-- Answers ok user_id reservation_id amount expires_at_ms expires_in_ms | insufficient user_id required violations
--         | budget_reached user_id required violations | suspended violations; then the balances | not_found
--         | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, counters, outbox (extend, reserve)
function operations.extend(i)
  local id, ttl_ms, add_amount = ARGV[i], ARGV[i + 1], ARGV[i + 2] + 0
  local hold = hold_of(id)
  local held = hold and pools.held(hold)
  hold = hold_of(id) -- settling may have ended it
  if not hold then
    local past = finished(id)
    return past and refuse_finished(past) or '0 not_found'
  end
  local a = held[1].a
  local payers = add_amount > 0 and pools.of_hold(a, id, only.purpose_of(hold)) or { a }
  if add_amount > 0 then
    local available = pools.available(payers)
    local refused = admission.refuse_suspended(a) or admission.refuse(a,
      { amount = add_amount, required = add_amount, short = add_amount > available, spendable = available,
        purpose = payers.purpose })
    if refused then return refused end
  end

  if ttl_ms ~= '' then
    for _, one in ipairs(held) do pools.prolong_one(one.a, one.hold, now + ttl_ms) end
  end
  local shares = pools.shares(payers, add_amount, 0)
  local rows_of = pools.hold_more(held, shares)
  local total = add_amount
  for n, one in ipairs(held) do
    total = total + one.before
    if n > 1 and one.before == one.hold.amount and ttl_ms ~= '' then
      rows_of[#rows_of + 1] = { kind = 'extend', a = one.a, amount = 0, draws = {}, detail = pools.format_hold(one.hold) }
    end
  end
  return pools.record(a.user, rows_of, now, function()
    return format('ok %s %s %d %d %d', a.user, id, total, hold.ends, hold.ends - now)
      .. balances(a, shares.purpose) .. pools.told(shares)
  end, current_key, current_extra)
end
