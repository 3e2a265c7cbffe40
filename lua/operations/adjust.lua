-- Takes free credits away, in burn order or from one grant. Nobody spent them: no usage has them, no rule counts them. More than
-- is free is refused, so that nothing of it is ever debt. What an adjustment gives is a grant (lua/operations/grant.lua).
-- ARGV    user_id, grant_id ("" = in burn order), amount (what is taken)
-- Answers ok user_id transaction_id amount (below zero) | exceeds user_id left | over user_id state (expired | voided); then the
--         balances | not_found
-- Writes  accounts, grants, order, agenda, due, outbox (adjust)
function operations.adjust(i)
  local a, id, amount = figures_of(account_of(ARGV[i])), ARGV[i + 1], ARGV[i + 2] + 0
  local g = id ~= '' and grant_of(a, id)
  if id ~= '' and not g then return '0 not_found' end
  if g and g.state ~= '-' then return format('0 over %s %s', a.user, g.state == 'e' and 'expired' or 'voided') .. balances(a) end
  local left = a.available
  if g then left = g.class == 'S' and 0 or g.remaining end -- one that has not begun has nothing to take: void it
  if amount > left then return format('0 exceeds %s %d', a.user, left) .. balances(a) end

  local draws = { g, amount }
  if g then
    g.remaining = g.remaining - amount
    only.add(a, g, -amount)
    place(a, g)
    change_account(a)
  else
    draws = draw(a, amount)
  end
  a.granted = a.granted - amount
  local transaction = record(a, 'adjust', -amount, draws, now, '', current_key, current_extra)
  return format('ok %s %s %d', a.user, transaction, -amount) .. balances(a)
end
