-- Gives an open reservation more time, counted from now, or more credits.
-- ARGV    reservation_id, ttl_ms ("" = leave), add_amount
-- Answers ok user_id reservation_id amount expires_at_ms expires_in_ms | insufficient user_id required violations
--         | budget_reached user_id required violations | suspended violations; then the balances | not_found
--         | finished state user_id charged
-- Writes  accounts, grants, order, holds, agenda, due, counters, outbox (extend)
function operations.extend(i)
  local id, ttl_ms, add_amount = ARGV[i], ARGV[i + 1], ARGV[i + 2] + 0
  local hold = hold_of(id)
  local a = hold and account_of(hold.user)
  hold = hold_of(id) -- settling may have ended it
  if not hold then
    local past = finished(id)
    return past and refuse_finished(past) or '0 not_found'
  end
  if add_amount > 0 then
    local refused = admission.refuse_suspended(a)
      or admission.refuse(a, { amount = add_amount, required = add_amount, short = add_amount > a.available })
    if refused then return refused end
  end

  if ttl_ms ~= '' then prolong(a, hold, now + ttl_ms) end
  local draws = draw(a, add_amount, true)
  hold.amount = hold.amount + add_amount
  if levels and add_amount > 0 then levels.hold_more(a.user, hold, add_amount) end
  add_draws(hold, draws)
  record(a, 'extend', add_amount, draws, now, format_hold(hold), current_key, current_extra)
  return format('ok %s %s %d %d %d', a.user, id, hold.amount, hold.ends, hold.ends - now) .. balances(a)
end
