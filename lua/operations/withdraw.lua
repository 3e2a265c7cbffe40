-- Takes back a hold whose caller was refused meanwhile: nothing remembers it, so that the same request may ask anew.
-- ARGV    reservation_id, expires_at_ms (the hold that ends then and no other, which was asked for again; "" = any)
-- Answers ok user_id reservation_id transaction_id released forfeited, then the balances | not_found
-- Writes  accounts, grants, order, holds, agenda, due, outbox (release, grant_expired)
function operations.withdraw(i)
  local id, ends = ARGV[i], ARGV[i + 1]
  local hold = hold_of(id)
  local held = hold and pools.held(hold)
  hold = hold_of(id) -- settling may have ended it
  if not hold or ends ~= '' and hold.ends ~= ends + 0 then return '0 not_found' end
  local a, total = held[1].a, pools.total(held)
  return pools.give_back('release', held, now, ',"withdrawn":true', function(transaction)
    return format('ok %s %s %s %d %d', a.user, id, transaction, total, pools.forfeited(held)) .. pools.balances(a)
  end, current_key, current_extra)
end
