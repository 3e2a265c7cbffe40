-- Reads one reservation, open or lately finished; behind the answer stands the price of its hold, where it has one.
-- ARGV    reservation_id
-- Answers ok user_id reservation_id state amount charged expires_at_ms (of a finished one: when it ended); then the balances
--         | not_found
function operations.reservation(i)
  local id = ARGV[i]
  local hold = hold_of(id)
  if hold then account_of(hold.user) end
  hold = hold_of(id) -- settling may have ended it
  local past = not hold and finished(id)
  if not hold and not past then return '0 not_found' end
  local held = hold and pools.held(hold)
  local kept, state, charged = hold or past, hold and 'open' or past.state, hold and 0 or past.charged
  local amount = held and pools.total(held) or kept.amount
  local answer = format('ok %s %s %s %d %d %d', kept.user, id, state, amount, charged, kept.ends or kept.ended)
    .. balances(account_of(kept.user))
  return kept.price and answer .. ' $' .. kept.price or answer
end
