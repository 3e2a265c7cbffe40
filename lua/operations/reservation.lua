-- Reads one reservation, open or lately finished.
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
  local user, state, charged = (hold or past).user, hold and 'open' or past.state, hold and 0 or past.charged
  return format('ok %s %s %s %d %d %d', user, id, state, (hold or past).amount, charged,
    hold and hold.ends or past.ended) .. balances(account_of(user))
end
